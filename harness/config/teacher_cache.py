"""Section `teacher_cache`: the teacher's embeddings, computed once instead of in every pass."""

from pydantic import Field

from harness.config.section import PathText, Section


class TeacherCacheConfig(Section):
    """Recipe section `teacher_cache`: what `clipkd teacher precompute` writes, and whether training reads it."""

    use: bool = Field(
        False,
        description="true = train from the cache that `clipkd teacher precompute` made of this recipe; the teacher "
        "itself is neither run nor loaded, and the student sees the cached views.",
    )
    views: int | None = Field(
        None,
        ge=1,
        le=2**16,
        description="Views of each image in the cache, shown in turn, one an epoch; null = 4, or 1 where neither crop "
        "nor augment is random.",
    )
    path: PathText | None = Field(
        None,
        description="Folder of the cache; null = a folder teacher_cache beside the shards or the CSV file, and in "
        "paths.data_root for synthetic pairs. ${data_root} is replaced.",
    )
