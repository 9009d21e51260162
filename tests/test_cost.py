"""Counted costs are those that one can count by hand."""

import time

import torch

from transnormer_edu.attention import linear_attention, softmax_attention
from transnormer_edu.cost import kept_bytes, moved_bytes, multiplications, seconds

A, B, C = 3, 5, 7


def test_multiplications_of_a_product():
    x, y = torch.ones(A, B), torch.ones(B, C)
    assert multiplications(torch.matmul, x, y) == A * B * C
    assert multiplications(lambda x, y: (x @ y) @ y.T + x, x, y) == A * B * C + A * C * B


def test_each_operator_reads_its_inputs_and_writes_its_result():
    x, y = torch.ones(A, B), torch.ones(B, C, dtype=torch.float32)
    product = A * B + B * C + A * C
    assert moved_bytes(torch.matmul, x, y) == 4 * product
    assert moved_bytes(lambda x, y: (x @ y).relu(), x, y) == 4 * (product + 2 * A * C)
    assert moved_bytes(lambda x, y: (x @ y).relu_(), x, y) == 4 * (product + 2 * A * C)


def test_views_move_nothing():
    x, y = torch.ones(2, A, B), torch.ones(2, B, C)
    assert moved_bytes(lambda x: x.mT[1:].flatten(), torch.ones(1, A, 1)) == 0
    assert moved_bytes(torch.matmul, x, y) == 4 * 2 * (A * B + B * C + A * C)


def test_bytes_are_counted_without_numbers():
    with torch.device("meta"):
        x, y = torch.ones(A, B), torch.ones(B, C, dtype=torch.float32)
    assert moved_bytes(torch.matmul, x, y) == 4 * (A * B + B * C + A * C)


def test_bytes_of_a_product_are_its_two_factors():
    x, y = (torch.ones(*s, requires_grad=True) for s in ((A, B), (B, C)))
    assert kept_bytes(torch.matmul, x, y) == 4 * (A * B + B * C)


def test_what_is_kept_twice_counts_once():
    x = torch.ones(A, B, dtype=torch.float64, requires_grad=True)
    assert kept_bytes(lambda x: x * x * x, x) == 8 * 2 * A * B  # x and x * x


def test_intermediate_results_that_are_gone_do_not_hide_one_another():
    x = torch.ones(1000, requires_grad=True)
    assert kept_bytes(lambda x: x.exp().exp().exp(), x) == 4 * 3 * 1000


def test_what_is_let_go_of_during_the_call_does_not_count():
    x = torch.ones(1000, requires_grad=True)

    def two_branches(x):
        x.exp()  # keeps its result, but nobody keeps it
        return x.sin().cos()

    assert kept_bytes(two_branches, x) == 4 * 2 * 1000  # x and sin(x)
    assert kept_bytes(lambda x: x.exp().sum().backward(), x) == 0


def test_nothing_is_kept_without_a_gradient():
    x = torch.ones(A, B)
    assert kept_bytes(torch.mul, x, x) == 0


def test_softmax_keeps_its_map_and_linear_attention_does_not():
    def growth(function, *rest):
        def run(n):
            q, k, v = (torch.ones(1, 1, n, 8, requires_grad=True) for _ in "qkv")
            return kept_bytes(function, q, k, v, *rest)

        return run(2048) / run(1024)

    assert 3.8 < growth(softmax_attention) < 4
    assert 1.8 < growth(linear_attention, torch.tensor([0.1])) < 2.1


def test_seconds_of_one_call():
    assert 0.02 <= seconds(time.sleep, 0.02) < 0.1
