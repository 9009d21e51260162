"""How fast the whole model is, beside the softmax twin and transformers' LLaMA of the same size.

    contestants    the models, and the fastest softmax attention that PyTorch has on this machine
    training       tokens per second of training steps, over the context
    decoding       time per token, over what was read before; a cache of fixed place for the twin
    prefill        time until a long prompt is read
    wrapping       what FSDP costs where there is nothing to share
    plan_memory    the memory that `plan` foresees, asked of a GPU
    results        the file of rows, where and with what they were measured
    measured       the rows that come with the package, as curves and ratios

`transnormer-edu bench train|decode|prefill` calls them. Nothing here is a test with a time limit.
"""
