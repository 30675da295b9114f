from wrennd.core.text import printable


def test_a_terminal_is_told_nothing():
    assert printable("über\n\x1b[2Jx\x9b\u202e") == "über\n\\x1b[2Jx\\x9b\\u202e"
