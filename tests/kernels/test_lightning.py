"""lightning_attention against float64: sizes, strides, states, rates, gradients, PyTorch."""

from itertools import product

import pytest
import torch

from .conftest import ANYWHERE, BOUND, EVERYWHERE, HALF, ONLY_GPU, bound, places
from .reference import error, left_product, recurrence, wide

kernels = pytest.importorskip("transnormer_kernels")
attention = kernels.lightning_attention
RATES = [0.0, 0.37, 8.0]  # none: still causal; some; the paper's largest


def tensors(device, dtype, b, h, n, dk, dv, grad=True):
    """q, k, v laid out (b, n, h, d), as a projection leaves them, and a gradient for o."""
    make = lambda d: torch.randn(b, n, h, d, device=device, dtype=dtype).transpose(1, 2)  # noqa: E731
    q, k, v, do = make(dk), make(dk), make(dv), make(dv)
    return [x.requires_grad_(grad) for x in (q, k, v)] + [do]


def agree(dtype, found, wanted):
    """o first: each result within the bound of its dtype; the message names which was not."""
    n = found[0].shape[2]
    errors = [error(x, y.double()) for x, y in zip(found, wanted, strict=True)]
    assert all(e <= bound(dtype, n) for e in errors), errors


def check(dtype, device, b, h, n, dk, dv, rate, layout=lambda x: x):
    """Output, final state and all gradients, with a state coming in."""
    *narrow, do = tensors(device, dtype, b, h, n, dk, dv, grad=False)
    q, k, v = (layout(x).requires_grad_() for x in narrow)
    state = torch.randn(b, h, dk, dv, device=device).requires_grad_()
    dfinal = torch.randn(b, h, dk, dv, device=device)
    leaves = [q, k, v, state]
    o, final = attention(q, k, v, rate, state=state, return_state=True)
    assert o.dtype == dtype and final.dtype == torch.float32
    grads = torch.autograd.grad([o, final], leaves, [do, dfinal])
    exact = wide(*leaves)
    ref = recurrence(*exact[:3], rate, exact[3])
    wanted = torch.autograd.grad(ref, exact, [do.double(), dfinal.double()])
    agree(dtype, (o, final, *grads), (*ref, *wanted))


# In the interpreter 4 "processors": b·h = 1 or 2 with n > 128 is cut into segments.
SIZES = [(1, 2, 1, 16, 16), (1, 3, 17, 24, 40), (2, 3, 70, 16, 80), (1, 2, 261, 32, 16)]


@pytest.mark.parametrize("b, h, n, dk, dv", SIZES)
@EVERYWHERE
def test_output_and_gradients(device, dtype, b, h, n, dk, dv):
    check(dtype, device, b, h, n, dk, dv, torch.tensor(RATES[:h], device=device))


@pytest.mark.parametrize(
    "dk, dv", [(64, 64), (128, 128), (256, 128), (256, 256), (96, 256), (160, 32)]
)
@pytest.mark.parametrize("n, h", [(200, 3), (1050, 3)])
@ONLY_GPU
def test_every_row_of_the_tables(device, dtype, n, h, dk, dv):
    """1050 rows are cut into segments; 200 are one segment."""
    check(dtype, device, 1, h, n, dk, dv, torch.tensor(RATES, device=device))


PADDED = (16, 32, 64, 128, 256)  # what head sizes are padded to: the tables know no others


@pytest.mark.parametrize("layout", ["as it is", "odd rows"])
@pytest.mark.parametrize("dk, dv", list(product(PADDED, repeat=2)))
@pytest.mark.parametrize("device, dtype", places(torch.bfloat16))
def test_all_tiles_with_and_without_tma(device, dtype, dk, dv, layout):
    """Two segments. The copy engine wants rows that begin at 16 bytes; pointers take the others."""
    rate = torch.tensor(RATES, device=device)
    check(dtype, device, 1, 3, 330, dk, dv, rate, LAYOUTS[layout])


@pytest.mark.parametrize("dk, dv", list(product(PADDED, (16, 32))))
@pytest.mark.parametrize("device, dtype", places(torch.float32)[-1:])
def test_all_tiles_in_float32(device, dtype, dk, dv):
    check(dtype, device, 1, 3, 330, dk, dv, torch.tensor(RATES, device=device))


@ANYWHERE
def test_a_rate_for_each_sequence(device, dtype):
    q, k, v, _ = tensors(device, dtype, 2, 3, 40, 16, 24, grad=False)
    rate = torch.rand(2, 3, device=device)
    assert error(attention(q, k, v, rate), recurrence(q, k, v, rate)[0]) <= BOUND[dtype]


def packed(x):
    """As one slice of a projection to q, k, v, u: a row stride four times its width."""
    wide = x.new_zeros(*x.shape[:-1], 4 * x.shape[-1])
    wide[..., x.shape[-1] : 2 * x.shape[-1]] = x
    return wide[..., x.shape[-1] : 2 * x.shape[-1]]


LAYOUTS = {
    "as it is": lambda x: x,
    "odd rows": lambda x: torch.nn.functional.pad(x, (0, 4))[..., :-4],
    "packed": packed,
    "every second column": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "columns outside": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "odd offset": lambda x: torch.cat([x[..., :1], x], -1)[..., 1:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@HALF
def test_any_strides(device, dtype, layout):
    """Without unit or 16-byte strides the tiles are fetched by pointers, and the chunks differ."""
    q, k, v, do = tensors(device, dtype, 1, 2, 150, 32, 48, grad=False)
    rate = torch.tensor([0.0, 0.2], device=device)
    views = [LAYOUTS[layout](x).requires_grad_() for x in (q, k, v)]
    o = attention(*views, rate)
    grads = torch.autograd.grad(o, views, do)
    plain = [x.double().requires_grad_() for x in (q, k, v)]
    ref = recurrence(*plain, rate)[0]
    agree(dtype, (o, *grads), (ref, *torch.autograd.grad(ref, plain, do.double())))


@ANYWHERE
def test_expanded_inputs_and_gradients(device, dtype):
    """Stride 0: one query for all heads, and the gradient of a sum."""
    q, k, v, _ = tensors(device, dtype, 2, 3, 20, 16, 16)
    one = q[:, :1].detach().requires_grad_()
    rate = torch.tensor(RATES, device=device)
    (got,) = torch.autograd.grad(attention(one.expand(2, 3, 20, 16), k, v, rate).sum(), one)
    ref = recurrence(one.expand(2, 3, 20, 16), k, v, rate)[0].sum()
    assert error(got, torch.autograd.grad(ref, one)[0].double()) <= BOUND[dtype]


@ANYWHERE
def test_results_keep_the_memory_order(device, dtype):
    """(b, n, h, d) in, (b, n, h, d) out: joining the heads again is a view."""
    q, k, v, do = tensors(device, dtype, 2, 3, 20, 16, 24)
    o = attention(q, k, v, torch.zeros(3, device=device))
    grads = torch.autograd.grad(o, [q, k, v], do)
    for x in (o, *grads):
        x.transpose(1, 2).view(2, 20, -1)


@ANYWHERE
def test_two_pieces_make_the_whole(device, dtype):
    q, k, v, _ = tensors(device, dtype, 1, 2, 230, 16, 24, grad=False)
    rate = torch.tensor([0.0, 0.1], device=device)
    o, final = attention(q, k, v, rate, return_state=True)
    first, state = attention(q[:, :, :101], k[:, :, :101], v[:, :, :101], rate, return_state=True)
    second, state = attention(
        q[:, :, 101:], k[:, :, 101:], v[:, :, 101:], rate, state=state, return_state=True
    )
    assert error(torch.cat([first, second], 2), o.double()) <= BOUND[dtype]
    assert error(state, final.double()) <= BOUND[dtype]


@ANYWHERE
def test_only_the_final_state_is_used(device, dtype):
    q, k, v, _ = tensors(device, dtype, 1, 2, 30, 16, 16)
    rate = torch.tensor([0.0, 0.5], device=device)
    got = torch.autograd.grad(attention(q, k, v, rate, return_state=True)[1].sum(), [k, v])
    ref = torch.autograd.grad(recurrence(q, k, v, rate)[1].sum(), [k, v])
    agree(dtype, got, ref)


@ANYWHERE
def test_rate_zero_is_causal(device, dtype):
    q, k, v, _ = tensors(device, dtype, 1, 2, 150, 16, 16, grad=False)
    rate = torch.zeros(2, device=device)
    before = attention(q, k, v, rate)
    k[:, :, 77:], v[:, :, 77:] = 1e6, -1e6
    assert torch.equal(before[:, :, :77], attention(q, k, v, rate)[:, :, :77])


@ANYWHERE
def test_huge_rates_leave_the_token_itself(device, dtype):
    q, k, v, do = tensors(device, dtype, 1, 2, 150, 16, 16)
    rate = torch.tensor([300.0, 3e38], device=device)
    o = attention(q, k, v, rate)
    own = (q * k).sum(-1, keepdim=True) * v
    grads = torch.autograd.grad(o, [q, k, v], do)
    wanted = torch.autograd.grad(own, [q, k, v], do)
    agree(dtype, (o, *grads), (own, *wanted))


@pytest.mark.parametrize("b, h", [(2, 60), (1, 3)])
@ONLY_GPU
def test_long_sequences_repeat_their_bits(device, dtype, b, h):
    """One pass and segments: right at length, the same bits twice, every element written."""
    q, k, v, do = tensors(device, dtype, b, h, 1500, 128, 128)
    rate = torch.rand(h, device=device) * torch.linspace(0, 1, h, device=device) ** 4
    runs = []
    for _ in range(2):
        o = attention(q, k, v, rate)
        runs.append((o, *torch.autograd.grad(o, [q, k, v], do)))
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))
    part = (slice(0, 1), slice(h - 3, h))
    some = [x[part].detach().requires_grad_() for x in (q, k, v)]
    ref = left_product(*some, rate[-3:])
    wanted = torch.autograd.grad(ref, some, do[part].double())
    agree(dtype, [x[part] for x in runs[0]], (ref, *wanted))


def test_registered_with_pytorch(device_and_dtype):
    device, dtype = device_and_dtype
    q, k, v, _ = tensors(device, dtype, 1, 2, 20, 16, 16)
    state = torch.randn(1, 2, 16, 16, device=device).requires_grad_()
    rate = torch.tensor([0.0, 0.3], device=device)
    op = torch.ops.transnormer.lightning_attention.default
    torch.library.opcheck(op, (q, k, v, rate, state, True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device_and_dtype, dynamic):
    device, dtype = device_and_dtype
    q, k, v, do = tensors(device, dtype, 1, 2, 20, 16, 16)
    rate = torch.tensor([0.0, 0.3], device=device)
    fast = torch.compile(
        lambda *x: attention(*x) * 2, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    got = torch.autograd.grad(fast(q, k, v, rate), [q, k, v], do)
    plain = torch.autograd.grad(attention(q, k, v, rate) * 2, [q, k, v], do)
    assert all(torch.equal(x, y) for x, y in zip(got, plain, strict=True))


def test_under_autocast_and_checkpointing(device_and_dtype):
    device, _ = device_and_dtype
    q, k, v, do = tensors(device, torch.float32, 1, 2, 20, 16, 16)
    rate = torch.tensor([0.0, 0.3], device=device)
    with torch.autocast(device, dtype=torch.float16):
        o = torch.utils.checkpoint.checkpoint(attention, q, k, v, rate, use_reentrant=False)
    assert o.dtype == torch.float16
    got = torch.autograd.grad(o, [q, k, v], do.half())
    wanted = torch.autograd.grad(recurrence(q, k, v, rate)[0], [q, k, v], do.double())
    assert all(error(x, y.double()) <= 2e-3 for x, y in zip(got, wanted, strict=True))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device_and_dtype(request):
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("the interpreter is for machines without a GPU, the rest for those with one")
    return request.param, torch.float32


def bad(**changes):
    """Arguments that fit, but for the changes."""
    q = torch.zeros(1, 2, 5, 16)
    fits = {"q": q, "k": q, "v": q, "rate": torch.zeros(2), "state": None}
    return fits | changes


FAR = torch.empty_strided((1, 2, 5, 16), (0, 0, 1, 2**28), device="meta")
BAD = {
    "not a tensor": (bad(q=[1.0]), TypeError, "q is a list"),
    "three dimensions": (bad(q=torch.zeros(2, 5, 16)), ValueError, r"q has shape \(2, 5, 16\)"),
    "no tokens": (bad(q=torch.zeros(1, 2, 0, 16)), ValueError, "at least 1"),
    "k too long": (bad(k=torch.zeros(1, 2, 6, 16)), ValueError, r"k has shape \(1, 2, 6, 16\)"),
    "mixed dtypes": (bad(v=torch.zeros(1, 2, 5, 16).half()), TypeError, "v is torch.float16"),
    "float64": (bad(q=torch.zeros(1, 2, 5, 16).double()), TypeError, "q is torch.float64"),
    "too narrow": (bad(v=torch.zeros(1, 2, 5, 8)), ValueError, "dv is 8"),
    "too wide": (
        bad(q=torch.zeros(1, 2, 5, 257), k=torch.zeros(1, 2, 5, 257)), ValueError, "dk is 257",
    ),
    "rate per token": (bad(rate=torch.zeros(5)), ValueError, r"rate has shape \(5,\)"),
    "integer rate": (bad(rate=torch.zeros(2, dtype=torch.int)), TypeError, "rate is torch.int32"),
    "negative rate": (bad(rate=torch.tensor([0.1, -0.2])), ValueError, "-0.2"),
    "learned rate": (bad(rate=torch.zeros(2, requires_grad=True)), ValueError, "fixed"),
    "half state": (bad(state=torch.zeros(1, 2, 16, 16).half()), TypeError, "state is torch.float"),
    "state transposed": (bad(state=torch.zeros(1, 2, 16, 17)), ValueError, "state has shape"),
    "far apart": (
        bad(q=FAR, k=FAR, v=FAR), ValueError, r"strides \(0, 0, 1, 268435456\): .* span 2\^31",
    ),
    "a learned rate's values": (
        bad(rate=torch.nn.Parameter(torch.tensor([0.1, -0.2]), requires_grad=False)),
        ValueError, "-0.2",
    ),
    "elsewhere": (bad(k=torch.zeros(1, 2, 5, 16, device="meta")), ValueError, "k is on meta"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["lightning_attention", "lightning_attention_v1"])
def test_refuses_what_does_not_fit(case, name):
    arguments, kind, words = BAD[case]
    arguments = dict(arguments)
    if name.endswith("v1") and arguments.pop("state") is not None:
        pytest.skip("v1 takes no state")
    with pytest.raises(kind, match=words):
        getattr(kernels, name)(**arguments)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_autocast_casts_nothing_that_its_own_operators_would_not(place):
    x = torch.zeros(1, 2, 5, 16)
    for wrong, words in [(x.double(), "is torch.float64"), ([1.0], "is a list")]:
        operands = [x, x, x]
        operands[place] = wrong
        with torch.autocast("cpu", torch.float16), pytest.raises(TypeError, match=words):
            attention(*operands, torch.zeros(2))


@pytest.mark.parametrize("device, dtype", places(torch.float32)[-1:])
def test_a_rate_on_a_gpu_is_read_once_and_again_when_it_changes(device, dtype):
    q, k, v, _ = tensors(device, dtype, 1, 2, 20, 16, 16, grad=False)
    rate = torch.tensor([0.0, 0.3], device=device)
    attention(q, k, v, rate)
    torch.cuda.set_sync_debug_mode("error")  # raises where the host would wait
    try:
        attention(q, k, v, rate)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    rate[1] = -0.2
    for call in (attention, kernels.lightning_attention_v1):
        with pytest.raises(ValueError, match="-0.2"):
            call(q, k, v, rate)
    with pytest.raises(ValueError, match="nan"):
        kernels.decode_step(
            q[:, :, 0], k[:, :, 0], v[:, :, 0], rate / 0, torch.zeros(1, 2, 16, 16, device=device)
        )


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_a_gpu_that_is_not_the_current_one():
    q, k, v, _ = tensors("cuda:1", torch.float32, 1, 2, 20, 16, 16, grad=False)
    rate, state = torch.tensor([0.0, 0.3], device="cuda:1"), torch.zeros(1, 2, 16, 16).to("cuda:1")
    o, final = recurrence(q, k, v, rate)
    for call in (attention, kernels.lightning_attention_v1):
        assert error(call(q, k, v, rate), o) <= BOUND[torch.float32]
    for t in range(20):
        kernels.decode_step(q[:, :, t], k[:, :, t], v[:, :, t], rate, state)
    assert error(state, final) <= BOUND[torch.float32]
    ref = q.double() * torch.rsqrt(q.double().pow(2).mean(-1, keepdim=True) + 1e-6)
    assert error(kernels.srmsnorm(q), ref) <= BOUND[torch.float32]


def test_a_cpu_without_the_interpreter_is_told(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="needs a GPU"):
        attention(**bad())
