"""Reads an OSCAL component definition with compliance-trestle's models, which are made from NIST's schemas. Usage: verify_oscal.py FILE"""

import pathlib
import sys

from trestle.oscal.component import ComponentDefinition

read = ComponentDefinition.oscal_read(pathlib.Path(sys.argv[1]))
requirements = read.components[0].control_implementations[0].implemented_requirements
print(" ".join(requirement.control_id for requirement in requirements))
