"""In place of PyTorch, for processes that train (`tests/tiny.py`)."""

raise ImportError("this process finds no PyTorch, as most users have none")
