"""What every test shares."""

import os

os.environ.setdefault("SECRET_KEY", "tests-sign-their-tokens-with-this-and-nothing-else")
