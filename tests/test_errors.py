import pickle

from kg4d.errors import InputError


def test_the_error_is_one_line_and_crosses_processes():
    error = pickle.loads(pickle.dumps(InputError("scene: key", "is wrong", "correct it")))
    assert isinstance(error, ValueError)
    assert (error.where, error.what, error.remedy) == ("scene: key", "is wrong", "correct it")
    assert str(error) == "scene: key: is wrong (correct it)"
