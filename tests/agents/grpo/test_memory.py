"""Memory of a gradient step: what exists at once; computing it in parts changes nothing."""

import pytest
import torch
from medseg_agents.grpo import GRPOConfig
from medseg_agents.grpo.forward.checkpointed_layers import checkpoint_layers
from medseg_agents.grpo.forward.token_log_probs import token_log_probs
from medseg_agents.grpo.shared_prompts import SharedPrompts, prompt_slices
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from medseg_gym.errors import MedSegError

from .conftest import dealt
from .test_shared_prompts import NoImages, rows_with

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

TOKENS, WIDTH, VOCABULARY = 150, 32, 1000
FORBIDDEN = [3, 4, 990, 999]


class Shapes(TorchDispatchMode):
    """Shapes of all tensors that operations give."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                self.shapes.add(tuple(one.shape))
        return out

    @property
    def largest(self):
        return max(torch.Size(shape).numel() for shape in self.shapes)


class Tied(nn.Module):
    """A model whose output embedding is that of its input, with adapters on it or without."""

    def __init__(self, kind):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.mix = nn.Linear(WIDTH, WIDTH)
            self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
            if kind == "tied":
                self.lm_head.weight = self.embed.weight
            if kind == "adapters":
                from peft import LoraConfig, inject_adapter_in_model

                config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
                inject_adapter_in_model(config, self)
                self.mix.requires_grad_(True)

    def hidden(self, ids):
        return self.mix(self.embed(ids))


def plain(head, hidden, chosen, temperature):
    logits = head(hidden).float() / temperature
    logits = logits.index_fill(1, torch.tensor(FORBIDDEN), -torch.inf)
    log_probs = torch.log_softmax(logits, dim=-1)
    entropy = -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(-1)
    return log_probs.gather(1, chosen[:, None])[:, 0], entropy


def drawn():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(10, 900, (2, TOKENS), generator=generator)
    return ids[0], ids[1], torch.randn(2, TOKENS, generator=generator)


def gradients(model, compute, entropy_learns):
    ids, chosen, weights = drawn()
    model.zero_grad()
    log_probs, entropy = compute(model.lm_head, model.hidden(ids), chosen)
    loss = (log_probs * weights[0]).sum()
    if entropy_learns:
        loss = loss + (entropy * weights[1]).sum()
    loss.backward()
    named = model.named_parameters()
    return log_probs, entropy, {n: p.grad for n, p in named if p.grad is not None}


@pytest.mark.parametrize("kind", ["untied", "tied", "adapters"])
@pytest.mark.parametrize(
    ("chunk", "temperature", "entropy_learns"),
    [(0, 1.0, True), (32, 1.0, False), (32, 0.7, True), (1, 1.3, True), (1000, 1.0, False)],
)
def test_chunks_change_neither_probabilities_nor_gradients(
    kind, chunk, temperature, entropy_learns
):
    model = Tied(kind).double()
    wanted = gradients(model, lambda *given: plain(*given, temperature), entropy_learns)

    def chunked(head, hidden, chosen):
        return token_log_probs(
            head,
            hidden,
            chosen,
            temperature=temperature,
            forbidden=FORBIDDEN,
            chunk=chunk,
            entropy_learns=entropy_learns,
        )

    log_probs, entropy, by = gradients(model, chunked, entropy_learns)
    assert entropy.requires_grad == entropy_learns
    torch.testing.assert_close(log_probs, wanted[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(entropy, wanted[1], atol=1e-6, rtol=1e-6)
    assert by.keys() == wanted[2].keys() and len(by) >= 3
    for name, gradient in wanted[2].items():
        assert (by[name] - gradient).norm() <= 1e-6 * gradient.norm(), name


def test_a_forbidden_token_has_probability_zero_and_teaches_nothing_to_itself():
    hidden = torch.randn(1, WIDTH, requires_grad=True)
    head = nn.Linear(WIDTH, VOCABULARY)
    log_probs, entropy = token_log_probs(head, hidden, torch.tensor([3]), forbidden=FORBIDDEN)
    assert log_probs.item() == -torch.inf and torch.isfinite(entropy).all()


@pytest.mark.parametrize("learns", [True, False])
def test_no_tensor_of_all_tokens_and_the_vocabulary_exists(learns):
    def largest(chunk):
        model = Tied("untied").requires_grad_(learns)
        ids, chosen, _ = drawn()
        with Shapes() as seen, torch.set_grad_enabled(learns):
            log_probs, _ = token_log_probs(
                model.lm_head, model.hidden(ids), chosen, forbidden=FORBIDDEN, chunk=chunk
            )
            if learns:
                log_probs.sum().backward()
        return seen.largest

    assert largest(0) == TOKENS * VOCABULARY
    # The weights and their gradient are that large themselves.
    assert largest(10) <= max(10, WIDTH) * VOCABULARY


def saved_bytes(algo, episodes):
    """Bytes that each micro-batch keeps for its backward pass, those of weights not counted."""
    module = algo.own_module()
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    parts, now = [], {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            now[storage.data_ptr()] = storage.nbytes()
        return tensor

    learner = algo.learner_group._learner
    accumulate = learner._accumulate

    def counted(*arguments):
        now.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = accumulate(*arguments)
        parts.append(sum(now.values()))
        return loss

    learner._accumulate = counted
    algo.learner_group.update(episodes=episodes, timesteps={})
    return parts


def test_checkpointing_and_chunks_keep_less_with_shared_prompts(make):
    settings = {"lr": 0.0, "temperature": 1.2, "entropy": 0.01, "micro_batch": 6}
    algo, small = make(**settings), make(gradient_checkpointing=True, logit_chunk=16, **settings)
    assert algo.own_module().shares_prompts and small.own_module().shares_prompts
    episodes = algo.env_runner.sample(groups=dealt(algo))
    layer = small.own_module().base.model.language_model.layers[0].mlp
    calls = []
    layer.register_forward_pre_hook(lambda *given: calls.append(torch.is_grad_enabled()))
    at_once = []
    head = small.own_module().base.get_output_embeddings()
    head.register_forward_pre_hook(lambda module, given: at_once.append(len(given[0])))
    few = saved_bytes(small, episodes)
    # Prompts without gradients, micro-batches and the prompts again; what has gradients twice.
    assert calls.count(False) == 1 and calls.count(True) == 2 * (len(few) + 1) >= 8
    assert max(few) < 0.4 * max(saved_bytes(algo, episodes))
    assert 0 < max(at_once) <= 16


def test_as_many_prompts_are_read_at_once_as_rows():
    rows = rows_with([[1, 2], [1, 2], [3, 4], [3, 4], [8, 8, 8], [5, 6], [5, 6], [5, 6]])

    def dealt(rows, size):
        return [[row.episode for row in part] for part in prompt_slices(rows, size)]

    assert dealt(rows, 1) == [[4], [0, 1], [2, 3], [5, 6, 7]]
    assert dealt(rows, 2) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert dealt(rows[::-1], 9) == [[7, 6, 5, 4, 3, 2, 1, 0]]
    assert prompt_slices(rows[4:5], 2) == [rows[4:5]]


def test_keys_computed_for_collecting_are_let_go_before_those_with_gradients():
    prompts = SharedPrompts(rows_with([[1, 2, 3], [1, 2, 3]]), NoImages, image_token=99)
    prompts.collect([(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))])
    keys, values = prompts.leaves[0]
    (2 * keys.sum()).backward()
    assert prompts.last_pass() is prompts.tensors and not prompts.leaves
    again = keys.detach() * torch.ones(4, requires_grad=True)
    tensors, gradients = prompts.carried([(again, values)])
    assert len(tensors) == 1 and tensors[0] is again  # nothing was collected about the values
    assert gradients[0].eq(2).all()


def test_what_cannot_be_done_is_said():
    with pytest.raises(MedSegError, match="logit_chunk must be >= 0"):
        GRPOConfig().chat(logit_chunk=-1)
    with pytest.raises(MedSegError, match="no layers for gradient checkpointing"):
        checkpoint_layers(nn.Linear(1, 1))
