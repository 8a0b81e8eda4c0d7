import pytest

from vl_alignment.analysis.function_classes import configurable_functions, function_classes
from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS, AlignmentSpecification, register_alignment_function
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import ConfigurationError

GENERAL = {"general_query", "general_key"}
PARAMETER_FREE = {"dot", "cosine", "scaled_dot"}
READ = {"dot", "scaled_dot", "general_key", "biased_general_key"}


def classes(config):
    return sorted((set(one.functions) for one in function_classes(config)), key=sorted)


def in_order(*sets):
    return sorted(sets, key=sorted)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [GENERAL, PARAMETER_FREE]),
        ({"score_normalization": "l2norm", "direction": "i2t"}, [GENERAL, PARAMETER_FREE]),
        ({"normalize_words": False}, [GENERAL, {"dot", "scaled_dot"}]),
        ({"score_normalization": "no_norm"}, [GENERAL | {"biased_general_key"}, {"dot", "cosine"}]),
        ({"score_normalization": "softmax"}, [GENERAL | {"biased_general_query"}, {"dot", "cosine"}]),
        ({"score_normalization": "clipped"}, [GENERAL, {"dot", "cosine"}]),
        ({"score_normalization": "clipped", "normalize_regions": False}, [GENERAL]),
        # The release mixes up words and regions under `general_key`, and not under `general_query`.
        ({"released_layout": True}, [PARAMETER_FREE]),
    ],
)
def test_classes_of_scan(fields, expected):
    assert classes(ScanConfig(**fields)) == in_order(*expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, READ),
        ({"alignment_units": "read_and_control"}, READ),
        ({"alignment_units": "read_and_control", "released_layout": True}, READ),
        ({"cell": "pytorch"}, READ | {"general_query"}),
    ],
)
def test_classes_of_mac(fields, expected):
    assert classes(MacConfig(**fields)) == [expected]


def test_classes_of_m4c_and_attngan():
    linear = {"dot", "scaled_dot", *GENERAL, "biased_general_key", "biased_general_query"}
    for released in (False, True):
        assert classes(M4CConfig(released_layout=released)) == [linear]
        assert classes(AttnGanConfig(released_layout=released)) == [linear - {"biased_general_query"}]


def test_functions_that_were_not_released_are_no_choice_there():
    assert configurable_functions(ScanConfig()) == [*ALIGNMENT_FUNCTIONS]
    assert "additive" not in configurable_functions(ScanConfig(released_layout=True))
    released = MacConfig(alignment_units="read_and_control", released_layout=True)
    assert "activated_general_query" in configurable_functions(released)


def test_a_function_of_one_s_own_joins_the_class_that_its_row_belongs_to(monkeypatch):
    monkeypatch.setattr("vl_alignment.models.alignment.ALIGNMENT_FUNCTIONS", ALIGNMENT_FUNCTIONS)
    register_alignment_function("scaled_general", AlignmentSpecification("Q (W K) / sqrt(d)", "key", scaled=True))
    try:
        assert "scaled_general" in function_classes(MacConfig())[0].functions
        assert "scaled_general" in function_classes(ScanConfig())[0].functions
    finally:
        del ALIGNMENT_FUNCTIONS["scaled_general"]


def test_reasons_stand_in_a_sentence():
    for config in (ScanConfig(), ScanConfig(score_normalization="no_norm"), MacConfig(), M4CConfig(), AttnGanConfig()):
        for one in function_classes(config):
            assert not one.reason.endswith((".", ",")) and one.reason == one.reason.strip()


def test_another_model_is_refused():
    with pytest.raises(ConfigurationError, match="type 'damsm' has no alignment function"):
        function_classes(DamsmConfig())
