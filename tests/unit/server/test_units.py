from wrennd.server.units import text


def test_the_unit_runs_what_it_is_told():
    unit = text(["/opt/my tools/wrenn", "up", "--domain", "50%$x"], {"WRENN_DATA_DIR": "/a $b%"})
    assert "ExecStart='/opt/my tools/wrenn' up --domain '50%%$$x'\n" in unit
    assert 'Environment="WRENN_DATA_DIR=/a $b%%"\n' in unit


def test_its_end_leaves_sandboxes_alone():
    unit = text(["wrenn", "up"], {})
    assert "\nKillMode=process\n" in unit
    assert "\nRestart=on-failure\n" in unit
