from .cases import Case as Case
from .cases import CaseSource as CaseSource
from .cases import load_cases as load_cases
from .testing.check_vector_env import check_vector_env as check_vector_env

__version__: str
