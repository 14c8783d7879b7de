"""Archives from strangers: what is regular comes out as it went in, all else is refused before a byte is written."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.errors import DataError
from advgym.leaderboards.rules.reasons import Refused
from advgym.leaderboards.store.unpack import contents, unpack

MB = 1 << 20


def tar(*members, format=tarfile.PAX_FORMAT):
    """A tar of (name, bytes) pairs and TarInfos."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(b"\0" * member.size))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name, type, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, target, size
    return info


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data, *mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (mode[0] if mode else 0o100644) << 16
            archive.writestr(info, data)
    return out.getvalue()


PACKERS = {
    "tar": tar,
    "gnu tar": lambda *m: tar(*m, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda *m: gzip.compress(tar(*m)),
    "zip": zipped,
    "stored zip": lambda *m: zipped(*m, method=zipfile.ZIP_STORED),
}


def refuse(data, code, words=None, **limits):
    with pytest.raises(Refused, match=words) as caught:
        contents(data, **{"size_mb": 1, **limits})
    assert caught.value.code == code


# -- what is regular -------------------------------------------------------------------------------------------------
names = st.lists(st.text("abcé_-.0 ", min_size=1, max_size=12).filter(lambda s: s.strip(".")), min_size=1, max_size=4)
folders = st.dictionaries(names.map("/".join), st.binary(max_size=2000), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(folders, st.sampled_from(sorted(PACKERS)))
def test_regular_files_come_out_as_they_went_in(tmp_path_factory, files, packer):
    files = {n: d for n, d in files.items() if not any(o != n and o.startswith(n + "/") for o in files)}
    to = tmp_path_factory.mktemp("out") / "folder"
    assert unpack(PACKERS[packer](*files.items()), to, size_mb=1) == sorted(files)
    assert {str(p.relative_to(to)): p.read_bytes() for p in to.rglob("*") if p.is_file()} == files
    assert not any(p.is_symlink() or p.stat().st_mode & 0o7111 for p in to.rglob("*") if p.is_file())


def test_what_tar_itself_writes_comes_out(tmp_path):
    (tmp_path / "in" / "weights").mkdir(parents=True)
    (tmp_path / "in" / "card.toml").write_text("name = 'x'")
    (tmp_path / "in" / "weights" / ("w" * 120)).write_bytes(b"\1" * 5000)
    os.system(f"tar -C {tmp_path}/in -czf {tmp_path}/x.tgz .")
    assert unpack((tmp_path / "x.tgz").read_bytes(), tmp_path / "out", size_mb=1) == [
        "card.toml",
        "weights/" + "w" * 120,
    ]


def test_setuid_bits_and_owners_are_not_taken_over(tmp_path):
    info = special("agent.py", tarfile.REGTYPE, size=3)
    info.mode, info.uid = 0o6777, 4242
    unpack(tar(info), tmp_path / "out", size_mb=1)
    assert (tmp_path / "out" / "agent.py").stat().st_mode & 0o7111 == 0
    assert (tmp_path / "out" / "agent.py").stat().st_uid == os.getuid()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        unpack(tar(("a", b"x")), tmp_path, size_mb=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# -- what is not -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packer", sorted(PACKERS))
@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\x", "C:\\x", "a\nb", "a\x1b[31m", "a\u202eb", "a/" * 9 + "x",
     "n" * 201, "é" * 101],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(tmp_path, packer, name):
    data = PACKERS[packer](("good.py", b"x"), (name, b"x"))
    with pytest.raises(Refused) as caught:
        unpack(data, tmp_path / "out", size_mb=1)
    assert caught.value.code == "bad-archive"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_links_devices_and_pipes_are_refused(type):
    member = special("evil", type, "/etc/passwd")
    if type == tarfile.CONTTYPE:  # an old name of a regular file
        assert contents(tar(member), size_mb=1) == {"evil": b""}
    else:
        refuse(tar(("a", b"x"), member), "bad-archive", "not a regular file")


def test_a_link_followed_by_a_file_through_it_is_refused(tmp_path):
    data = tar(special("d", tarfile.SYMTYPE, str(tmp_path / "elsewhere")), ("d/x", b"x"))
    with pytest.raises(Refused):
        unpack(data, tmp_path / "out", size_mb=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_links_and_devices_in_a_zip_are_refused(mode):
    refuse(zipped(("evil", b"/etc/passwd", mode)), "bad-archive", "not a regular file")


@pytest.mark.parametrize("claimed", [600, 8 << 30])
def test_sparse_files_are_refused(claimed):
    raw = bytearray(header(b"S", b"x" * 512))
    raw[386:410] = b"%011o\0%011o\0" % (0, 512)  # one piece of data
    raw[482:495] = b"\0" + (b"\x80" + claimed.to_bytes(11, "big"))  # and how long it says that it is
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    refuse(bytes(raw) + tar(("a", b"")), "bad-archive", "not a regular file")
    info = special("hole", tarfile.REGTYPE, size=512)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(claimed),
                        "GNU.sparse.name": "hole"}  # fmt: skip
    refuse(tar(info), "bad-archive")


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_the_same_name_twice_and_a_file_that_is_a_folder_are_refused(packer):
    refuse(PACKERS[packer](("a", b"1"), ("./a", b"2")), "bad-archive", "twice")
    refuse(PACKERS[packer](("a", b"1"), ("a/b", b"2")), "bad-archive", "a file and a folder")


def test_two_spellings_of_one_name_are_one_name():
    refuse(tar(("\u00e9", b"1"), ("e\u0301", b"2")), "bad-archive", "twice")


def test_the_empty_ones():
    for data in (tar(), zipped(), gzip.compress(tar()), tar(special("only", tarfile.DIRTYPE))):
        refuse(data, "empty-submission")


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_too_many_files_and_too_many_bytes(packer):
    pack = PACKERS[packer]
    refuse(pack(*[(f"f{i}", b"") for i in range(11)]), "too-large", "more than 10 files", files=10)
    assert len(contents(pack(*[(f"f{i}", b"") for i in range(10)]), size_mb=1, files=10)) == 10
    refuse(pack(("a", os.urandom(MB // 2)), ("b", os.urandom(MB // 2 + 1))), "too-large", "more than 1 MB")
    assert contents(pack(("a", bytes(MB))), size_mb=1)["a"] == bytes(MB)
    refuse(pack(*[(f"d{i}/x", b"") for i in range(30)]), "too-large", files=10)


def test_ten_thousand_folders_are_refused():
    refuse(tar(*[special(f"d{i}", tarfile.DIRTYPE) for i in range(10_000)]), "too-large", size_mb=50)


# -- bombs -----------------------------------------------------------------------------------------------------------
def overlapping(copies=900, size=8 * MB):
    """Entries of a zip that all point at one and the same compressed stream."""
    one = zipped(("a", bytes(size)))
    start = one.index(b"PK\1\2")
    record = bytearray(one[start : one.index(b"PK\5\6")])
    central = b""
    for i in range(copies):
        name = f"{i:03d}".encode()
        record[28:30] = struct.pack("<H", len(name))
        central += bytes(record[:46]) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, copies, copies, len(central), start, 0)
    return one[:start] + central + end


BOMBS = {
    "gzip": lambda: gzip.compress(bytes(80 * MB), 1),
    "tar.gz": lambda: gzip.compress(tar(("zeros", bytes(80 * MB))), 1),
    "zip": lambda: zipped(("zeros", bytes(80 * MB))),
    "many in a zip": lambda: zipped(*[(f"z{i}", bytes(MB)) for i in range(60)]),
    "overlapping": overlapping,
    "bzip2": lambda: zipped(("zeros", bytes(50 * MB)), method=zipfile.ZIP_BZIP2),
    "lzma": lambda: zipped(("zeros", bytes(50 * MB)), method=zipfile.ZIP_LZMA),
    "extended headers": lambda: gzip.compress(pax_bomb()),
    "header on header": lambda: header(b"x", b"13 path=abcd\n") * 20_000 + tar(("a", b"")),
    "points back": lambda: header(b"0", b"", size=-512) + tar(("a", b"")),
    "gzip members": lambda: gzip.compress(b"") * 400_000,
    "lying size": lambda: header(b"0", b"", size=8 << 30),
}  # fmt: skip


def header(type, data, size=None):
    info = tarfile.TarInfo("name")
    info.type, info.size = type, len(data)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        raw[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + data + b"\0" * (-len(data) % 512)


def pax_bomb():
    value = b"x" * (50 * MB)
    return header(b"x", b"%d path=%s\n" % (len(value) + 16, value)) + tar(("a", b""))


@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_bomb_costs_little_memory(bomb):
    """And so little time: what is not unpacked is not waited for."""
    data = BOMBS[bomb]()
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            contents(data, size_mb=10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code in ("bad-archive", "too-large")
    assert peak < 40 * MB, peak / MB


def test_an_archive_larger_than_the_limit_is_refused_before_it_is_opened():
    refuse(b"PK" + os.urandom(3 * MB), "too-large", r"the archive has 3\.0 MB, the board allows 1 MB")


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_a_cut_archive_is_refused_or_loses_only_what_follows_its_files(packer):
    files = {"agent.py": b"x" * 700, "card.toml": b"name = 'x'\n" * 30}
    data = PACKERS[packer](*files.items())
    for cut in range(0, len(data), 37):
        try:
            found = contents(data[:cut], size_mb=1)
        except Refused as error:
            assert error.code in ("bad-archive", "empty-submission")
        else:  # a tar that ends between two members is a whole tar
            assert "tar" in packer and found.items() <= files.items()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12))
def test_flipped_bytes_are_refused_or_give_files(packer, flips):
    data = bytearray(PACKERS[packer](("agent.py", b"def attack(): ..."), ("w/x", bytes(600))))
    for where, value in flips:
        data[int(where * (len(data) - 1))] = value
    try:
        found = contents(bytes(data), size_mb=1)
    except Refused as error:
        assert error.blame == "participant"
    else:
        assert found and all(isinstance(v, bytes) for v in found.values())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"PK", b"PK\3\4", b"\x1f\x8b\x08\0"]), st.binary(max_size=3000))
def test_noise_is_refused(start, noise):
    with pytest.raises(Refused):
        contents(start + b"\1" + noise, size_mb=1)
