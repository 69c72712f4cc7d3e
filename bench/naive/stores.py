"""What the straightforward aggregator keeps its state in: Valkey, and in simulations a dictionary instead."""

from __future__ import annotations

from redis.asyncio import Redis

from mesh.clock import Clock


class ValkeyStore:
    """Implements ``Store``."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def get(self, key: str) -> bytes | None:
        value = await self._client.get(key)
        return None if value is None else _bytes(value)

    async def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> bool:
        return bool(await self._client.set(key, value, ex=ex, nx=nx))

    async def delete(self, key: str) -> None:
        await self._client.delete(key)

    async def incr(self, key: str) -> int:
        return int(await self._client.incr(key))

    async def expire(self, key: str, seconds: int) -> None:
        await self._client.expire(key, seconds)

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        fields = await self._client.hgetall(key)
        return {_bytes(field): _bytes(value) for field, value in fields.items()}

    async def hincrby(self, key: str, field: str) -> int:
        return int(await self._client.hincrby(key, field))

    async def hset(self, key: str, field: str, value: str) -> None:
        await self._client.hset(key, field, value)


class MemoryStore:
    """Implements ``Store`` by a dictionary; EXPIRE is left out, since no key comes back under its name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[str, tuple[str, float]] = {}
        self._counts: dict[str, int] = {}
        self._hashes: dict[str, dict[bytes, bytes]] = {}

    async def get(self, key: str) -> bytes | None:
        value, until = self._values.get(key, ("", 0.0))
        return value.encode() if until > self._clock.monotonic() else None

    async def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> bool:
        if nx and await self.get(key) is not None:
            return False
        self._values[key] = value, self._clock.monotonic() + ex
        return True

    async def delete(self, key: str) -> None:
        self._values.pop(key, None)
        self._hashes.pop(key, None)

    async def incr(self, key: str) -> int:
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count

    async def expire(self, key: str, seconds: int) -> None:
        pass

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self._hashes.get(key, {})

    async def hincrby(self, key: str, field: str) -> int:
        fields = self._hashes.setdefault(key, {})
        count = int(fields.get(field.encode(), 0)) + 1
        fields[field.encode()] = str(count).encode()
        return count

    async def hset(self, key: str, field: str, value: str) -> None:
        self._hashes.setdefault(key, {})[field.encode()] = value.encode()


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
