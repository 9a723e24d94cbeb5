"""Reads an OSCAL component definition with compliance-trestle's models, which are made from NIST's schemas. Usage: verify_oscal.py FILE"""

import pathlib
import sys

from trestle.oscal.component import ComponentDefinition

read = ComponentDefinition.oscal_read(pathlib.Path(sys.argv[1]))
component = read.components[0]
requirements = component.control_implementations[0].implemented_requirements
print(component.title, read.metadata.oscal_version.root if hasattr(read.metadata.oscal_version, "root") else read.metadata.oscal_version)
print(" ".join(requirement.control_id for requirement in requirements))
