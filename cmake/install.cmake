# SPDX-License-Identifier: Apache-2.0
#
# What `make install` puts where. Everything it writes is relocatable: the pkg-config files and the
# CMake package find their prefix from their own place.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/splitkv)

install(DIRECTORY include/splitkv DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
install(TARGETS splitkv splitkv_shared EXPORT splitkv-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT splitkv-targets NAMESPACE splitkv:: DESTINATION ${package_dir})

configure_package_config_file(cmake/splitkv-config.cmake.in
  ${PROJECT_BINARY_DIR}/package/splitkv-config.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 a new minor version may break callers, as the SONAME's 0 says of the whole line.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/splitkv-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/splitkv-config.cmake
              ${PROJECT_BINARY_DIR}/package/splitkv-config-version.cmake
        DESTINATION ${package_dir})

if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
  set(pc_libdir ${CMAKE_INSTALL_FULL_LIBDIR})
  set(pc_includedir ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
  file(RELATIVE_PATH up /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  string(REGEX REPLACE "/$" "" up ${up})
  set(pc_prefix "\${pcfiledir}/${up}")
  set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(pc_dl "")
if(CMAKE_DL_LIBS) # "dl" where dlopen is, or was, in a library of its own
  set(pc_dl " -l${CMAKE_DL_LIBS}")
endif()
set(pc_files splitkv.pc)

if(TARGET splitkv_openmp_shared)
  install(TARGETS splitkv_openmp_shared EXPORT splitkv-openmp-targets
          LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(TARGETS splitkv_openmp EXPORT splitkv-openmp-static-targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  foreach(name splitkv-openmp splitkv-openmp-static)
    install(EXPORT ${name}-targets NAMESPACE splitkv:: DESTINATION ${package_dir})
  endforeach()
  list(APPEND pc_files splitkv-openmp.pc)
endif()

foreach(file IN LISTS pc_files)
  configure_file(cmake/${file}.in ${PROJECT_BINARY_DIR}/package/${file} @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/package/${file}
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

# The manual page is written once, in Markdown; awk is on every machine that has make.
set(manual ${PROJECT_SOURCE_DIR}/docs/splitkv.1.md)
find_program(SPLITKV_AWK awk)
if(EXISTS ${manual} AND SPLITKV_AWK)
  add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/splitkv.1
    COMMAND ${SPLITKV_AWK} -v version=${PROJECT_VERSION} -f ${PROJECT_SOURCE_DIR}/cmake/man.awk
            ${manual} > ${PROJECT_BINARY_DIR}/splitkv.1
    DEPENDS ${manual} ${PROJECT_SOURCE_DIR}/cmake/man.awk VERBATIM)
  add_custom_target(splitkv_manual ALL DEPENDS ${PROJECT_BINARY_DIR}/splitkv.1)
  install(FILES ${PROJECT_BINARY_DIR}/splitkv.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
