"""A data scientist's morning: log in, load everything, look at it, train a model.

    python examples/data_scientist.py --user NAME [--url http://127.0.0.1:8000] [--out plots]

The password comes from BOOKAPI_PASSWORD, or is asked for. Needs requests, pandas, pyarrow, scikit-learn, matplotlib.
"""

from __future__ import annotations

import argparse
import getpass
import io
import os
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import requests
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

mpl.use("Agg")  # plots become files; no window is opened
from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the catalogue answers")
    parser.add_argument("--user", required=True)
    parser.add_argument("--out", type=Path, default=Path("plots"), help="folder for the plots")
    options = parser.parse_args()
    base = f"{options.url.rstrip('/')}/api/v1"
    h = log_in(base, options.user, os.environ.get("BOOKAPI_PASSWORD") or getpass.getpass())

    # The whole catalogue in one call ...
    books = pd.DataFrame(requests.get(f"{base}/books?page_size=all", headers=h, timeout=60).json()["results"])
    # ... and as Parquet, typed and about ten times smaller, in one line.
    typed = pd.read_parquet(io.BytesIO(requests.get(f"{base}/books?format=parquet", headers=h, timeout=60).content))
    books["category"] = books["category"].map(lambda category: category["name"])
    print(f"{len(books)} books in {books['category'].nunique()} categories; {len(typed)} rows from Parquet")

    show_statistics(requests.get(f"{base}/stats/overview", headers=h, timeout=60).json(), books)
    for path in plot(books, options.out):
        print(f"plot: {path}")

    model = SimilarBooks(books)
    asked = books.iloc[0]
    print(f"\nSimilar to {asked['title']!r} ({asked['category']}, {asked['price']:.2f}):")
    print(model.similar_to(asked["id"]).to_string(index=False))


def log_in(base: str, user: str, password: str) -> dict[str, str]:
    """The header that every further request carries."""
    answer = requests.post(f"{base}/auth/login", json={"username": user, "password": password}, timeout=10)
    if answer.status_code != requests.codes.ok:
        raise SystemExit(f"Login failed: {answer.json().get('detail', answer.status_code)}")
    return {"Authorization": f"Bearer {answer.json()['access']}"}


def show_statistics(overview: dict, books: pd.DataFrame) -> None:
    """What the server says, and the same worked out here."""
    price = overview["price"]
    print(
        f"prices in {price['currency']}: {price['min']} to {price['max']}, mean {price['mean']}, sd {price['stddev']}"
    )
    print(f"worked out here: mean {books['price'].mean():.2f}, sd {books['price'].std():.2f}")
    told, here = overview["price_rating_correlation"], books["price"].corr(books["rating"])
    print(f"correlation of price and rating: {told['pearson']} (Pearson, {told['n']} books); here {here:.6f}")
    print("\nbooks a category:")
    print(books["category"].value_counts().head(10).to_string())


def plot(books: pd.DataFrame, folder: Path) -> list[Path]:
    """Three pictures: how ratings and prices are distributed, and which categories are the largest."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "ratings.png": ("Ratings", lambda ax: books["rating"].value_counts().sort_index().plot.bar(ax=ax, rot=0)),
        "prices.png": ("Prices", lambda ax: books["price"].plot.hist(bins=20, ax=ax)),
        "categories.png": (
            "Largest categories",
            lambda ax: books["category"].value_counts().head(15).sort_values().plot.barh(ax=ax),
        ),
    }
    paths = []
    for name, (title, draw) in pictures.items():
        figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
        draw(ax)
        ax.set_title(title)
        figure.savefig(folder / name, dpi=110)
        plt.close(figure)
        paths.append(folder / name)
    return paths


class SimilarBooks:
    """Nearest books by title (TF-IDF), category and price, by cosine of their weighted vectors."""

    #: How much each part counts. A price says little about what a book is.
    CATEGORY_WEIGHT, PRICE_WEIGHT = 1.0, 0.1

    def __init__(self, books: pd.DataFrame) -> None:
        self.books = books.reset_index(drop=True)
        title = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode").fit_transform(self.books["title"])
        category = OneHotEncoder().fit_transform(self.books[["category"]])
        price = csr_matrix(MinMaxScaler().fit_transform(self.books[["price"]]))
        self.features = hstack([title, category * self.CATEGORY_WEIGHT, price * self.PRICE_WEIGHT]).tocsr()
        self.index = NearestNeighbors(metric="cosine").fit(self.features)

    def similar_to(self, book_id: int, k: int = 5) -> pd.DataFrame:
        """The k nearest other books, nearest first; `similarity` is the cosine, 0 to 1."""
        row = self.books.index[self.books["id"] == book_id][0]
        distances, rows = self.index.kneighbors(self.features[row], n_neighbors=min(k + 1, len(self.books)))
        found = self.books.loc[rows[0], ["id", "title", "category", "price", "rating"]]
        found["similarity"] = (1 - distances[0]).round(3)
        return found[found["id"] != book_id].head(k)


if __name__ == "__main__":
    main()
