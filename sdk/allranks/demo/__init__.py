"""A small training job that is real: digits, a numpy MLP, data-parallel over processes, logged with allranks.

    python -m allranks.demo --ranks 4          starts the ranks, as torchrun would
    python -m allranks.demo.train              is one rank; it reads RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT …

It needs numpy and scikit-learn: pip install "allranks[demo]".
"""
