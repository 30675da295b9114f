from wrennd.core.errors import ImageBroken, NotFound
from wrennd.host import doctor


def test_capabilities_that_lack_are_named():
    every = f"Name:\tx\nCapEff:\t{(1 << 41) - 1:016x}\n"
    assert doctor.lacking_capabilities(every) == []
    without_admin = f"CapEff:\t{((1 << 41) - 1) & ~(1 << 21):016x}\n"
    assert doctor.lacking_capabilities(without_admin) == ["CAP_SYS_ADMIN"]
    assert set(doctor.lacking_capabilities("CapEff:\t0\n")) == set(
        doctor.NEEDED_CAPABILITIES.values()
    )


def test_broken_images_keep_sandboxes_from_running_and_missing_ones_do_not():
    missing = doctor.images_problem(NotFound("there is no guest kernel yet"))
    assert missing.status is doctor.Status.NOTE
    broken = doctor.images_problem(ImageBroken("the guest kernel is broken"))
    assert broken.status is doctor.Status.MISSING
    assert "wrenn setup" in broken.advice
