from wrennd.host import doctor


def test_capabilities_that_lack_are_named():
    every = f"Name:\tx\nCapEff:\t{(1 << 41) - 1:016x}\n"
    assert doctor.lacking_capabilities(every) == []
    without_admin = f"CapEff:\t{((1 << 41) - 1) & ~(1 << 21):016x}\n"
    assert doctor.lacking_capabilities(without_admin) == ["CAP_SYS_ADMIN"]
    assert set(doctor.lacking_capabilities("CapEff:\t0\n")) == set(
        doctor.NEEDED_CAPABILITIES.values()
    )
