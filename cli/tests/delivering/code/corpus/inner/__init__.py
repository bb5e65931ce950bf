from ..shared import BASE as PARENT
from .names import NAME
