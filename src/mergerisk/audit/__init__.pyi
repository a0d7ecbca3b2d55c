from .gates import Gate as Gate
from .gates import parse_gate as parse_gate
from .running import AuditResult as AuditResult
from .running import audit as audit
from .schema import Audit as Audit
from .schema import load_audit as load_audit
from .verdict import Verdict as Verdict
from .verdict import judge as judge
