from wrennd.control.forks import children_of
from wrennd.core.ids import check_sandbox_id, new_sandbox_id
from wrennd.core.model import MAX_CHILDREN


def test_the_children_of_a_fork_are_the_same_each_time_and_nobody_else_s():
    names = [new_sandbox_id() for _ in range(50)]
    found = [children_of(name, MAX_CHILDREN) for name in names]
    assert found == [children_of(name, MAX_CHILDREN) for name in names]
    assert children_of(names[0], 2) == found[0][:2]
    ids = [each for one in found for each in one]
    assert len(set(ids)) == len(ids) == 50 * MAX_CHILDREN
    for each in ids:
        check_sandbox_id(each)
