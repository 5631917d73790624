# SPDX-License-Identifier: Apache-2.0
# `splitkv run` as its users meet it. Included by the CMakeLists.txt beside it.
#
# run_numpy looks for an interpreter that has NumPy by itself, and fails where there is none: it is
# the check that is not our own oracle, so leaving it out must be seen.

find_program(SPLITKV_PYTHON python3 REQUIRED)
foreach(name run_numpy run_bad_input)
  add_test(NAME tool/${name}
           COMMAND ${SPLITKV_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/${name}.py
                   $<TARGET_FILE:splitkv_tool>)
  set_tests_properties(tool/${name} PROPERTIES LABELS tool TIMEOUT 600)
endforeach()
