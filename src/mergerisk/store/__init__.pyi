from .keys import Json as Json
from .keys import canonical_json as canonical_json
from .keys import content_key as content_key
from .store import (
    Arrays as Arrays,
)
from .store import (
    Artefact as Artefact,
)
from .store import (
    DamagedArtefactError as DamagedArtefactError,
)
from .store import (
    LostArtefactError as LostArtefactError,
)
from .store import (
    MissingArtefactError as MissingArtefactError,
)
from .store import (
    Spooled as Spooled,
)
from .store import (
    Store as Store,
)
