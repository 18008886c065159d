"""How books resemble each other: plain numpy and scikit-learn, so that a small process can carry it without Django."""
