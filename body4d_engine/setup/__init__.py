# SPDX-License-Identifier: Apache-2.0
"""Making the full backend work on a machine: what there is (`machine`), what is to be done (`plan`, pure), doing it (`doing`).

The standard library only, so that the add-on can show and carry out the same plan with a Python of its own."""
