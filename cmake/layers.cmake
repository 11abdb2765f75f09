# A layer is a folder under src/: its sources become one static library minke_NAME, its *_test.cpp
# files one test program NAME_tests. Folders that hold nothing yet are skipped.

add_library(minke_flags INTERFACE)
target_include_directories(minke_flags INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/src)
target_compile_definitions(minke_flags INTERFACE MINKE_VERSION="${PROJECT_VERSION}")
# -Wno-restrict: gcc 12 warns wrongly on "text" + std::string (gcc bug 105329).
target_compile_options(minke_flags INTERFACE -Wall -Wextra -Wno-psabi -Wno-restrict -fno-math-errno
                       $<$<BOOL:${MINKE_WERROR}>:-Werror>)
if(MINKE_SANITIZE)
  target_compile_options(minke_flags INTERFACE -fsanitize=${MINKE_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(minke_flags INTERFACE -fsanitize=${MINKE_SANITIZE})
endif()

set(MINKE_LAYERS "" CACHE INTERNAL "")

function(_minke_sources out dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${dir}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

function(minke_layer name)
  cmake_parse_arguments(ARG "" "" "USES;LINK" ${ARGN})
  _minke_sources(sources ${name})
  if(sources)
    add_library(minke_${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(minke_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_link_libraries(minke_${name} ${scope} minke_flags ${ARG_LINK})
  foreach(lower ${ARG_USES})
    target_link_libraries(minke_${name} ${scope} minke_${lower})
  endforeach()
  set(MINKE_LAYERS ${MINKE_LAYERS} ${name} CACHE INTERNAL "")
endfunction()

function(minke_program name)
  cmake_parse_arguments(ARG "" "DIR" "USES;LINK" ${ARGN})
  _minke_sources(sources ${ARG_DIR})
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  foreach(lower ${ARG_USES})
    target_link_libraries(${name} PRIVATE minke_${lower})
  endforeach()
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

function(minke_layer_tests)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  foreach(layer ${MINKE_LAYERS})
    file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${layer}/*_test.cpp)
    if(tests)
      add_executable(${layer}_tests ${tests})
      target_link_libraries(${layer}_tests PRIVATE minke_${layer} GTest::gtest GTest::gtest_main)
      target_compile_definitions(${layer}_tests PRIVATE
                                 MINKE_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/tests/golden")
      gtest_discover_tests(${layer}_tests DISCOVERY_TIMEOUT 120
                           PROPERTIES LABELS unit TIMEOUT 600)
    endif()
  endforeach()
endfunction()
