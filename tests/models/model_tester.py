"""What every model of the package must do; a model's test class inherits `ModelTester` and says how it is made."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from vl_alignment.models.alignment import alignment_function_names
from vl_alignment.models.errors import CheckpointError, VlAlignmentError


class ModelTester:
    """Tests that all models share.

    Attributes:
        config_class, model_class: The two classes under test.
        scores: The field of the output that holds the model's scores, one row an example.
        atol_of_dtype: How far the scores in half precision may be from those in float32.
        continuous: Fields of a configuration under which a small change of the weights changes the scores little, and
            which drop nothing out.
        spread_of_draws: By what factor the largest of a tensor's starting values may differ from that of another draw.
        alignment_modules: How many alignment functions with weights of their own the model has.
        with_loss: What beside the inputs makes the model return a loss.
    """

    config_class: type
    model_class: type
    scores: str
    atol_of_dtype = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
    continuous: dict = {}
    spread_of_draws = 1.6
    alignment_modules = 1
    with_loss: dict = {"return_loss": True}

    def make_config(self, **fields):
        """A configuration of a few numbers."""
        raise NotImplementedError

    def make_inputs(self, examples=3):
        """Inputs of so many examples, of different lengths, with a loss among the outputs."""
        raise NotImplementedError

    def alone(self, inputs, index):
        """The inputs of one of the examples, without its padding."""
        raise NotImplementedError

    def scores_alone(self, scores, index):
        """What of the scores of a batch belongs to one example."""
        return scores[index]

    def queries_and_keys(self, inputs):
        """Boolean masks [examples, queries], [examples, keys] for the last two dimensions; one pair a map."""
        raise NotImplementedError

    def has_no_gradient(self, model, parameter_name):
        """Whether a parameter cannot change the scores: what adds the same to every key of a softmax."""
        return False

    def make_model(self, **fields):
        torch.manual_seed(0)
        return self.model_class(self.make_config(**fields)).eval()

    def scores_of(self, model, inputs=None):
        with torch.no_grad():
            return getattr(model(**(inputs or self.make_inputs())), self.scores)

    @pytest.fixture
    def saved(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model")
        return model, tmp_path / "model"

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_saved_and_loaded_is_equal(self, name, tmp_path):
        model = self.make_model(alignment_function=name)
        model.save_pretrained(tmp_path)
        torch.manual_seed(1)
        loaded = self.model_class.from_pretrained(tmp_path)
        assert loaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": str(tmp_path)}
        assert not loaded.training
        for key, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key
        assert torch.equal(self.scores_of(loaded), self.scores_of(model))

    def test_auto_classes(self, saved):
        model, folder = saved
        config = AutoConfig.from_pretrained(folder)
        assert type(config) is self.config_class
        loaded = AutoModel.from_pretrained(folder)
        assert type(loaded) is self.model_class
        assert torch.equal(self.scores_of(loaded), self.scores_of(model))
        assert type(AutoModel.from_config(config)) is self.model_class

    def test_config_survives_its_file(self, saved):
        model, folder = saved
        loaded, expected = self.config_class.from_pretrained(folder).to_dict(), model.config.to_dict()
        assert {**loaded, "_name_or_path": ""} == expected

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_gradients_reach_every_parameter(self, name):
        model = self.make_model(alignment_function=name).train()
        model(**self.make_inputs(), **self.with_loss).loss.backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None, parameter_name
            if self.has_no_gradient(model, parameter_name):
                assert parameter.grad.abs().max() < 1e-6, parameter_name
            else:
                assert parameter.grad.abs().sum() > 0, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_scores_do_not_depend_on_batch_or_padding(self, name):
        model, inputs = self.make_model(alignment_function=name).double(), self.make_inputs()
        together = self.scores_of(model, inputs)
        for index in range(3):
            alone = self.scores_of(model, self.alone(inputs, index))
            torch.testing.assert_close(alone.squeeze(), self.scores_alone(together, index).squeeze())

    def test_equal_seeds_give_equal_models(self):
        first, second = self.make_model(), self.make_model()
        torch.manual_seed(1)
        other = self.model_class(self.make_config())
        for (key, tensor), repeated, different in zip(
            first.state_dict().items(), second.state_dict().values(), other.state_dict().values(), strict=True
        ):
            assert torch.equal(tensor, repeated)
            assert (tensor == tensor.flatten()[0]).all() or not torch.equal(tensor, different), key

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("name", alignment_function_names())
    def test_half_precision_is_near(self, name, dtype):
        model = self.make_model(alignment_function=name, **self.continuous)
        expected = self.scores_of(model)
        scores = self.scores_of(model.to(dtype))
        torch.testing.assert_close(scores.float(), expected, rtol=0, atol=self.atol_of_dtype[dtype])

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_trains_under_autocast(self, name):
        model = self.make_model(alignment_function=name, **self.continuous).train()
        expected = self.scores_of(model)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**self.make_inputs(), **self.with_loss)
        scores = getattr(output, self.scores)
        assert scores.dtype == output.loss.dtype == torch.float32
        torch.testing.assert_close(scores, expected, rtol=0, atol=self.atol_of_dtype[torch.bfloat16])
        output.loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())

    def test_stored_dtype_is_kept_on_loading(self, saved, tmp_path):
        model, _ = saved
        model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
        loaded = self.model_class.from_pretrained(tmp_path / "half")
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
        raised = self.model_class.from_pretrained(tmp_path / "half", dtype=torch.float32)
        assert {parameter.dtype for parameter in raised.parameters()} == {torch.float32}

    @pytest.mark.parametrize("name", alignment_function_names())
    def test_attentions_are_rows_that_sum_to_one(self, name):
        model, inputs = self.make_model(alignment_function=name), self.make_inputs()
        with torch.no_grad():
            assert model(**inputs).attentions is None
            attentions = model(**inputs, output_attentions=True).attentions
        attentions = attentions if isinstance(attentions, tuple) else (attentions,)
        for maps, (queries, keys) in zip(attentions, self.queries_and_keys(inputs), strict=True):
            assert maps.shape[0] == 3 and maps.shape[-2:] == (queries.shape[1], keys.shape[1])
            assert (maps >= 0).all() and maps.masked_fill(keys.unsqueeze(1), 0).abs().max() == 0
            torch.testing.assert_close(maps.sum(-1)[queries], torch.ones(int(queries.sum())))

    # Weights that do not fit

    def edit_weights(self, folder, edit):
        weights = load_file(folder / "model.safetensors")
        edit(weights, sorted(weights)[0])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def assert_refused(self, folder, message):
        for load in (self.model_class.from_pretrained, AutoModel.from_pretrained):
            with pytest.raises(CheckpointError, match=message) as error:
                load(folder)
            assert str(folder) in str(error.value) and isinstance(error.value, VlAlignmentError | ValueError)

    def test_missing_tensor_is_refused(self, saved):
        model, folder = saved
        self.edit_weights(folder, lambda weights, name: weights.pop(name))
        missing = sorted(model.state_dict())[0]
        self.assert_refused(folder, f"1 missing tensor.*{missing}")
        partial = self.model_class.from_pretrained(folder, allow_partial=True)
        for name, tensor in model.state_dict().items():
            loaded = partial.state_dict()[name]
            assert torch.isfinite(loaded).all() and (name == missing or torch.equal(loaded, tensor))

    def test_every_missing_tensor_is_drawn_as_in_a_fresh_model(self, saved):
        # Loading makes the model without numbers: what is not in the file holds whatever was in memory.
        model, folder = saved
        self.edit_weights(folder, lambda weights, kept: [weights.pop(name) for name in sorted(weights)[1:]])
        partial = self.model_class.from_pretrained(folder, allow_partial=True).state_dict()
        for name, tensor in model.state_dict().items():
            ours, fresh = partial[name].abs().max().item() + 1e-6, tensor.abs().max().item() + 1e-6
            assert 1 / self.spread_of_draws < ours / fresh < self.spread_of_draws, name

    def test_unexpected_tensor_is_refused(self, saved):
        model, folder = saved
        self.edit_weights(folder, lambda weights, name: weights.update(extra=torch.ones(2)))
        self.assert_refused(folder, "1 unexpected tensor.*extra")
        assert torch.equal(
            self.scores_of(self.model_class.from_pretrained(folder, allow_partial=True)), self.scores_of(model)
        )

    def test_tensor_of_another_shape_is_refused(self, saved):
        model, folder = saved
        self.edit_weights(folder, lambda weights, name: weights.update({name: torch.ones(3, 7)}))
        changed = sorted(model.state_dict())[0]
        self.assert_refused(folder, f"1 mismatched tensor.*{changed}.*3, 7")
        partial = self.model_class.from_pretrained(folder, allow_partial=True)
        assert partial.state_dict()[changed].shape == model.state_dict()[changed].shape
        with pytest.raises(CheckpointError):
            self.model_class.from_pretrained(folder, ignore_mismatched_sizes=True)

    def test_numbers_that_are_not_finite_are_refused(self, saved):
        model, folder = saved
        self.edit_weights(folder, lambda weights, name: weights[name].view(-1)[-1:].fill_(torch.nan))
        self.assert_refused(folder, f"{sorted(model.state_dict())[0]}.*not finite")

    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.9])
    def test_truncated_file_is_refused(self, kept, saved):
        _, folder = saved
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: int(kept * len(content))])
        self.assert_refused(folder, "cannot be loaded")
        with pytest.raises(CheckpointError):
            self.model_class.from_pretrained(folder, allow_partial=True)

    def test_folder_without_weights_is_refused(self, saved):
        _, folder = saved
        (folder / "model.safetensors").unlink()
        self.assert_refused(folder, "model.safetensors")

    def test_folder_that_does_not_exist_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match="nowhere"):
            self.model_class.from_pretrained(tmp_path / "nowhere")

    def test_weights_of_another_function_are_refused(self, saved):
        _, folder = saved
        for name, kind in [("dot", "unexpected"), ("biased_general_key", "missing")]:
            with pytest.raises(CheckpointError, match=f"{self.alignment_modules} {kind} tensor.*alignment"):
                self.model_class.from_pretrained(folder, alignment_function=name)

    def test_partial_loading_keeps_what_fits_and_draws_the_rest(self, saved):
        model, folder = saved
        partial, info = self.model_class.from_pretrained(
            folder, alignment_function="biased_general_key", allow_partial=True, output_loading_info=True
        )
        assert len(info["missing_keys"]) == self.alignment_modules
        for name, tensor in partial.state_dict().items():
            assert torch.isfinite(tensor).all()
            assert name in info["missing_keys"] or torch.equal(tensor, model.state_dict()[name]), name
