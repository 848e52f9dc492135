# SPDX-License-Identifier: Apache-2.0
"""The stages of a run. Each is a small class: `name`, `version`, `needs`, JSON-able `settings`, and

    run(clip, people, take, cursor) -> Iterator[Event]

which writes its part of the take with append, commit and notice. `cursor` is None, or what its last commit kept before an earlier run was cut
short. The same input must give the same take however often a stage is killed and resumed.
"""
