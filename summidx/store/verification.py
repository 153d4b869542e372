"""Reading an index whole: every byte of its files, and every row. This is how a bit that flipped is found.

What is found is marked in the generation itself (`inventory`), under the lock of the index, so that every plan from
then on sees it and has the index built again. There is no list of findings beside the indexes that could disagree.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from summidx.errors import StorageUnavailable, StoreError
from summidx.records import Manifest, count_documents, count_where
from summidx.store.generations import IndexRoot, generation_name
from summidx.store.inventory import find_changed_files, mark_damaged, read_inventory
from summidx.store.place import Files


@dataclass(frozen=True, slots=True)
class WholeReading:
    """What a whole reading of one index found."""

    name: str
    faults: tuple[str, ...] = ()
    """What is damaged, a line each; () where the index is whole."""
    documents: int = 0
    has_digests: bool = True
    """False: it was built before digests were kept, and a bit that flipped in a text of it cannot be found."""
    not_marked: str = ""
    """Why the finding could not be left for the next plan, which may then take the index for whole."""


def read_whole(root: IndexRoot, name: str) -> WholeReading:
    """Read the published index of `name` whole, and mark it where it is damaged.

    An index that is published anew while it is read is read again. One that is gone is whole.

    Raises:
        StorageUnavailable: object storage does not answer: nothing is known of it, and nothing is marked.
    """
    while True:
        try:
            manifest = root.read_manifest(name)
        except StorageUnavailable:
            raise
        except StoreError as error:
            return WholeReading(name, (str(error),))  # as every plan sees it, too
        if manifest is None:
            return WholeReading(name)
        files = root.files(name, manifest)
        faults = tuple(_find_faults(files, manifest))
        if not faults:
            return WholeReading(name, (), count_where(manifest.counts), _has_digests(files))
        try:
            if _mark(root, name, manifest.publish_id, files, faults):
                return WholeReading(name, faults)
        except (OSError, StoreError) as error:
            return WholeReading(name, faults, not_marked=" ".join(str(error).split()))


def _find_faults(files: Files, manifest: Manifest) -> Iterator[str]:
    """What is damaged. Rows are only read where the files are whole: LanceDB trusts what it reads of a file."""
    if not files.sizes():
        yield f"its generation {generation_name(manifest)} is missing"
        return
    changed = list(find_changed_files(files))
    yield from changed
    if changed:
        return
    from summidx.store.tables import IndexTable

    try:
        table = IndexTable(files.table)
        table.read_whole()
        documents = table.documents()
    except StorageUnavailable:
        raise
    except (StoreError, ValueError) as error:
        yield str(error)
        return
    if count_documents(documents) != manifest.counts:
        yield f"its {len(documents)} rows are not those that its manifest counts"
    elif len({document.id for document in documents}) != len(documents):
        yield "a row comes more than once"
    if table.dim != manifest.dim:
        yield f"its vectors have {table.dim} dimensions instead of {manifest.dim}"


def _mark(root: IndexRoot, name: str, publish_id: str, files: Files, faults: tuple[str, ...]) -> bool:
    """Mark the generation, unless another one has been published since: then False."""
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    with root.place.index(name).exclusive():
        try:
            latest = root.read_manifest(name)
        except StorageUnavailable:
            raise
        except StoreError:
            return False  # read again, and told as it is then
        if latest is None or latest.publish_id != publish_id:
            return False
        if files.sizes():  # else everybody sees the damage
            mark_damaged(files, f"{faults[0]}{more} (found by a whole reading)")
    return True


def _has_digests(files: Files) -> bool:
    return all(record.sha256 for record in read_inventory(files).values())
