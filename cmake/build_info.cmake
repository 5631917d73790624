# SPDX-License-Identifier: Apache-2.0
#
# Writes the definitions of tools/splitkv/build_info.h, each time the tool is built and only where
# they changed:
#
#   cmake -D OUTPUT=FILE.c -D SOURCE=FOLDER -D COMPILER=TEXT -D FLAGS=TEXT -P build_info.cmake

# A source tree that is not a repository itself may still lie inside of somebody else's.
set(commit unknown)
find_program(GIT git)
if(GIT AND EXISTS ${SOURCE}/.git)
  execute_process(
    COMMAND ${GIT} --no-optional-locks describe --always --dirty --tags --abbrev=12
    WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE said ERROR_QUIET RESULT_VARIABLE status
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(status EQUAL 0 AND said MATCHES "^[A-Za-z0-9._/+-]+$")
    set(commit "${said}")
  endif()
endif()

# Flags may hold paths, which say nothing to anybody else.
string(REGEX REPLACE "/[^ ]*" "<path>" flags "${FLAGS}")
string(REGEX REPLACE "  +" " " flags "${flags}")
string(STRIP "${flags}" flags)
foreach(name flags COMPILER)
  string(REPLACE "\\" "\\\\" ${name} "${${name}}")
  string(REPLACE "\"" "\\\"" ${name} "${${name}}")
endforeach()

set(text "/* Written by build_info.cmake. */
#include \"build_info.h\"

const char build_commit[] = \"${commit}\";
const char build_compiler[] = \"${COMPILER}\";
const char build_flags[] = \"${flags}\";
")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT before STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
