"""Members of a shard put together to samples: those that follow one another and share a key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from webdataset.tariterators import base_plus_ext

from harness.data.members import Member, printable
from harness.data.samples import Kind, RawSample, SkippedSample

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
_MOST = 8  # names of members in a message


@dataclass
class _Group:
    """The members of one key, by ending."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    fault: tuple[Kind, str] | None = None


@dataclass
class Grouping:
    """Makes samples of a shard's members, as webdataset does.

    A member without an ending belongs to no sample, nor does a link. They are remembered, not read.

    Attributes:
        shard: what the samples have as theirs.
    """

    shard: str
    _group: _Group | None = field(default=None, init=False)
    _incomplete: set[str] = field(default_factory=set, init=False)
    _first_unread: str = field(default="", init=False)
    _num_unread: int = field(default=0, init=False)

    def add(self, member: Member) -> RawSample | None:
        """Take in the next member; return the sample before it if that ends here."""
        key, ending = base_plus_ext(member.name)
        if key is None:
            self._leave_out(member, "it has no key and ending, as in 0001.jpg")
            return None
        if member.content is None:
            self._leave_out(member, member.unread)
        finished = None
        if self._group is None or self._group.key != key:
            if member.content is None:
                return None
            finished, self._group = self.finish(), _Group(key)
        _put(self._group, ending.lower(), member)
        return finished

    def finish(self) -> RawSample | None:
        """Return the last sample."""
        group, self._group = self._group, None
        return None if group is None else self._sample(group)

    def remarks(self) -> list[SkippedSample]:
        """Return what is to be said of the members that were left out."""
        if not self._num_unread:
            return []
        count = "1 member is" if self._num_unread == 1 else f"{self._num_unread:,} members are"
        return [SkippedSample("", self.shard, "unread_member", f"{count} not read; the first is {self._first_unread}")]

    def _leave_out(self, member: Member, why: str) -> None:
        if not self._num_unread:
            self._first_unread = f"{printable(member.name)} at byte {member.offset}: {why}"
        self._num_unread += 1

    def _sample(self, group: _Group) -> RawSample:
        if group.fault is not None:
            return RawSample(printable(group.key), self.shard, None, None, group.fault[1], group.fault[0])
        contents = {ending: member.content for ending, member in group.members.items()}
        image = next((contents[ending] for ending in IMAGE_ENDINGS if ending in contents), None)
        caption = contents["txt"] if "txt" in contents else _caption_in_json(contents.get("json"))
        whole = image is not None and caption is not None
        members = None if whole else self._instead(group, caption is None)
        return RawSample(group.key, self.shard, image, caption, members=members)

    def _instead(self, group: _Group, no_caption: bool) -> str:
        """Return what a sample has that lacks an image or a caption."""
        endings = list(group.members)
        words = [f"it has {_listed(endings)}"]
        if no_caption and group.members.get("json") and "txt" not in endings:
            words.append('its json has no text as "caption"')
        if any(ending.rpartition(".")[2] in (*IMAGE_ENDINGS, "txt", "json") for ending in endings if "." in ending):
            words.append("a key ends at its first dot")
        if group.key in self._incomplete:
            words.append("other members of this key come before them, so sort the archive by name")
        self._incomplete.add(group.key)
        return "; ".join(words)


def _put(group: _Group, ending: str, member: Member) -> None:
    name = printable(member.name)
    if name != member.name:
        group.fault = group.fault or ("name_not_utf8", f"the name {name} at byte {member.offset} is not UTF-8")
    if ending in group.members:
        first = group.members[ending].offset
        fault = f"the member {name} comes twice, at bytes {first} and {member.offset}"
        group.fault = group.fault or ("duplicate_member", fault)
    else:
        group.members[ending] = member


def _caption_in_json(content: bytes | None) -> bytes | str | None:
    """Return the "caption" of a sample's JSON as img2dataset writes it; undecodable bytes are returned as they are."""
    if content is None:
        return None
    try:
        fields: Any = json.loads(content)
    except UnicodeDecodeError:
        return content
    except (ValueError, RecursionError):
        return None
    caption = fields.get("caption") if isinstance(fields, dict) else None
    return caption if isinstance(caption, str) else None


def _listed(endings: list[str]) -> str:
    shown = [ending if len(ending) <= 40 else f"{ending[:37]}..." for ending in endings[:_MOST]]
    more = f" and {len(endings) - _MOST} more" if len(endings) > _MOST else ""
    return (", ".join(shown) + more) if more or len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
