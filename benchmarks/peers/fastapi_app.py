"""The same reads as one writes them with FastAPI, SQLAlchemy and pydantic: the yardstick of the serving benchmark.

Written as its documentation teaches and with care for speed: a mapped class with its category eagerly joined, pydantic
models validated from attributes, response models, a JWT dependency without a query, a pooled session. It reads the
very database file that the catalogue serves. `BENCH_DATABASE` names the file, `BENCH_SECRET` the tokens' key.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, ForeignKey, Numeric, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship, sessionmaker

engine = create_engine(f"sqlite:///{os.environ['BENCH_DATABASE']}")
SessionLocal = sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Category(Base):
    __tablename__ = "catalog_category"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str]


class Book(Base):
    __tablename__ = "catalog_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str]
    upc: Mapped[str]
    title: Mapped[str]
    authors: Mapped[list[str]] = mapped_column(JSON)
    description: Mapped[str]
    category_id: Mapped[int] = mapped_column(ForeignKey("catalog_category.id"))
    category: Mapped[Category] = relationship()
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    price_excl_tax: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    tax: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str]
    rating: Mapped[int]
    stock: Mapped[int]
    availability: Mapped[str]
    in_stock: Mapped[bool]
    review_count: Mapped[int]
    product_type: Mapped[str]
    image_url: Mapped[str]
    source_url: Mapped[str]
    listed: Mapped[bool]
    hidden: Mapped[bool]
    first_seen_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class CategoryOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str
    slug: str


class BookOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    shop: str
    upc: str
    title: str
    authors: list[str]
    description: str
    category: CategoryOut
    price: float
    price_excl_tax: float
    tax: float
    currency: str
    rating: int
    stock: int
    availability: str
    in_stock: bool
    review_count: int
    product_type: str
    image_url: str
    source_url: str
    listed: bool
    first_seen_at: datetime
    updated_at: datetime


class BookPage(BaseModel):
    count: int
    next: str | None
    previous: str | None
    results: list[BookOut]


class Stats(BaseModel):
    total: int
    in_stock: int
    stock_units: int
    price_min: float
    price_max: float
    price_mean: float
    price_median: float
    rating_mean: float
    ratings: dict[int, int]


bearer = HTTPBearer()


def account(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    try:
        claims = jwt.decode(
            credentials.credentials,
            os.environ["BENCH_SECRET"],
            algorithms=["HS256"],
            audience="bookapi",
            issuer="bookapi",
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "invalid token") from error
    return str(claims["user_id"] if "user_id" in claims else claims["sub"])


def session() -> Iterator[Session]:
    with SessionLocal() as opened:
        yield opened


Account = Annotated[str, Depends(account)]
Db = Annotated[Session, Depends(session)]
app = FastAPI()
shown = (Book.listed.is_(True), Book.hidden.is_(False))


@app.get("/books", response_model=BookPage)
def books(_: Account, db: Db, page_size: str = "20", after: Annotated[int, Query(ge=0)] = 0) -> BookPage:
    query = select(Book).options(joinedload(Book.category)).where(*shown, Book.id > after).order_by(Book.id)
    if page_size != "all":
        query = query.limit(int(page_size))
    rows = db.scalars(query).all()
    count = db.scalar(select(func.count()).select_from(Book).where(*shown)) or 0
    return BookPage(
        count=count,
        next=f"/books?page_size={page_size}&after={rows[-1].id}" if rows else None,
        previous=None,
        results=[BookOut.model_validate(row) for row in rows],
    )


@app.get("/books/{book_id}", response_model=BookOut)
def book(book_id: int, _: Account, db: Db) -> Book:
    row = db.scalar(select(Book).options(joinedload(Book.category)).where(Book.id == book_id, Book.hidden.is_(False)))
    if row is None:
        raise HTTPException(404)
    return row


@app.get("/stats", response_model=Stats)
def stats(_: Account, db: Db) -> Stats:
    rows = db.execute(select(Book.price, Book.rating, Book.stock).where(*shown)).all()
    prices = [float(row.price) for row in rows]
    ratings = [row.rating for row in rows]
    return Stats(
        total=len(rows),
        in_stock=sum(row.stock > 0 for row in rows),
        stock_units=sum(row.stock for row in rows),
        price_min=min(prices),
        price_max=max(prices),
        price_mean=statistics.fmean(prices),
        price_median=statistics.median(prices),
        rating_mean=statistics.fmean(ratings),
        ratings={star: ratings.count(star) for star in range(1, 6)},
    )
