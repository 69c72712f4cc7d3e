"""The files of the data folder: credentials, addresses and the ledger."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import grpc
import pytest

from mesh.money import Money
from seller_sim.adapters.files import (
    DataFolderError,
    credentials,
    make_folder,
    read_json,
    write_json,
)
from seller_sim.adapters.listeners import GrpcListeners, addresses_for
from seller_sim.adapters.sqlite import SqliteLedger
from seller_sim.domain.account import Record
from seller_sim.domain.catalogue import Condition
from seller_sim.domain.records import (
    Cancelled,
    Closed,
    Confirmed,
    Hold,
    HoldRecord,
    HoldState,
    OrderRecord,
    Pending,
    Quote,
    Reason,
    Rejection,
)

TOTAL = Money("USD", 2_499)
CONFIRMED = Confirmed("BK-1", TOTAL)
QUOTE = Quote("q", Money("USD", 2_100), Money("USD", 399), TOTAL, Condition.NEW, 3, 10, 5)
REJECTION = Rejection(Reason.PRICE_CHANGED, QUOTE)


def order(key: str, **what: object) -> OrderRecord:
    fields: dict[str, object] = {
        "key": key,
        "content": b"\x00\xff",
        "buyer_reference": "buyer",
        "book_id": "9780134685991",
        "condition": Condition.GOOD,
        "answer": CONFIRMED,
        "state": CONFIRMED,
        "created_us": 1,
        "updated_us": 2,
    }
    return OrderRecord(**{**fields, **what})  # type: ignore[arg-type]  # the fields, as above


RECORDS: list[Record] = [
    HoldRecord(
        "held", b"c", "b", Condition.NEW, Hold("H-1", TOTAL, 9_000, 8_000), HoldState.ORDERED
    ),
    HoldRecord("rejected", b"c", "b", None, REJECTION, HoldState.REJECTED),
    HoldRecord("tombstone", b"", "", None, None, HoldState.CLOSED),
    order("confirmed", too_late=True),
    order("rejected", answer=REJECTION, state=REJECTION),
    order("refused later", state=Pending(1, 2, Rejection(Reason.OUT_OF_STOCK))),
    order("confirmed later", answer=Pending(1, 2, CONFIRMED), state=Pending(1, 2, CONFIRMED)),
    order("cancelled", state=Cancelled("BK-1", 7)),
    order("tombstone", content=b"", answer=None, condition=None, state=Closed()),
]


def test_every_kind_of_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    ledger.write("shop", RECORDS)
    ledger.write("another", RECORDS[:1])
    ledger.close()
    ledger = SqliteLedger(tmp_path)
    read = ledger.read_all()
    ledger.close()
    assert sorted(read["shop"], key=str) == sorted(RECORDS, key=str)
    assert read["another"] == RECORDS[:1]


def test_a_record_replaces_the_one_of_its_key(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    ledger.write("shop", [order("k")])
    ledger.write("shop", [order("k", state=Cancelled("BK-1", 7))])
    assert ledger.read_all()["shop"] == [order("k", state=Cancelled("BK-1", 7))]
    ledger.close()


def test_records_are_written_all_or_none(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    broken = order("broken", book_id=None)
    with pytest.raises(Exception, match="NOT NULL"):
        ledger.write("shop", [order("k"), broken])
    assert not ledger.read_all()
    ledger.write("shop", [order("k")])
    ledger.close()


def test_a_second_process_is_refused_the_ledger(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    with pytest.raises(DataFolderError, match="is another simulator using it"):
        SqliteLedger(tmp_path)
    ledger.close()


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    first = credentials(tmp_path, ["a", "b"])
    assert len(set(first.values())) == 2
    more = credentials(tmp_path, ["b", "c"])
    assert more["b"] == first["b"]
    path = tmp_path / "credentials.json"
    assert json.loads(path.read_text()) == first | more
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_file_that_is_not_an_object_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(DataFolderError, match=r"credentials\.json"):
        read_json(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="missing"):
        write_json(tmp_path / "missing" / "file.json", {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="data: Not a directory"):
        make_folder(tmp_path / "file" / "data")


def test_hundreds_have_addresses_of_their_own_and_thousands_share() -> None:
    ids = [f"s-{n}" for n in range(1_200)]
    assert addresses_for(ids[:500], None) == {name: [name] for name in ids[:500]}
    shared = addresses_for(ids, None)
    assert [len(sellers) for sellers in shared.values()] == [500, 500, 200]
    assert [name for sellers in shared.values() for name in sellers] == ids
    assert len(addresses_for(ids, 1)) == 1_200
    assert list(addresses_for(ids[:3], 2).values()) == [ids[:2], ids[2:3]]


def server(_seller_ids: object) -> grpc.aio.Server:
    return grpc.aio.server(options=[("grpc.so_reuseport", 0)])


def connects(endpoint: str) -> bool:
    host, port = endpoint.split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


async def test_an_address_opens_closes_and_is_the_same_after_a_restart(tmp_path: Path) -> None:
    listeners = GrpcListeners(tmp_path, {"shop": ["shop"]}, server)
    endpoint = listeners.endpoint_of("shop")
    assert not connects(endpoint)
    await listeners.open("shop")
    await listeners.open("shop")
    assert connects(endpoint)
    await listeners.refuse("shop")
    assert not connects(endpoint)
    await listeners.open("shop")
    assert listeners.endpoint_of("shop") == endpoint
    await listeners.close(0)

    again = GrpcListeners(tmp_path, {"shop": ["shop"]}, server)
    await again.open("shop")
    assert again.endpoint_of("shop") == endpoint
    await again.close(0)


async def test_a_port_that_is_taken_is_replaced_and_the_new_one_remembered(
    tmp_path: Path,
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        write_json(tmp_path / "addresses.json", {"shop": taken, "gone": 1})
        listeners = GrpcListeners(tmp_path, {"shop": ["shop"]}, server)
        await listeners.open("shop")
        endpoint = listeners.endpoint_of("shop")
        assert endpoint != f"127.0.0.1:{taken}"
        assert connects(endpoint)
        await listeners.close(0)
    remembered = read_json(tmp_path / "addresses.json")
    assert remembered == {"shop": int(endpoint.split(":")[1]), "gone": 1}
