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
  # A null pointer that is read is a crash under the address sanitizer anyway, and checking for it at
  # every access, with the dynamic type, is a quarter of the time to compile.
  if(MINKE_SANITIZE MATCHES "undefined")
    target_compile_options(minke_flags INTERFACE -fno-sanitize=null,vptr,object-size)
  endif()
  target_link_options(minke_flags INTERFACE -fsanitize=${MINKE_SANITIZE})
endif()

set(MINKE_LAYERS "" CACHE INTERNAL "")

function(_minke_sources out dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${dir}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

# WITHOUT names sources, without .cpp, that this build has another form of.
function(minke_layer name)
  cmake_parse_arguments(ARG "" "" "USES;LINK;WITHOUT" ${ARGN})
  _minke_sources(sources ${name})
  foreach(other ${ARG_WITHOUT})
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/${other}.cpp)
  endforeach()
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

# Discovers the tests of a program whose full names match `filter`, as gtest patterns, with one label.
function(_minke_discover program label filter)
  gtest_discover_tests(${program} TEST_FILTER "${filter}" DISCOVERY_TIMEOUT 120
                       PROPERTIES LABELS ${label} TIMEOUT 900 ${ARGN})
endfunction()

# Each test has one label, by words in its name: `threads`, else `golden`, else `format`, else `unit`.
# What holds the clock to a bound says `Timed`: it is a unit test that runs while no other does.
# The target threads_tests builds the programs that hold tests of threads.
function(minke_layer_tests)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_custom_target(threads_tests)
  foreach(layer ${MINKE_LAYERS})
    file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${layer}/*_test.cpp)
    if(tests)
      set(program ${layer}_tests)
      add_executable(${program} ${tests})
      target_link_libraries(${program} PRIVATE minke_${layer} GTest::gtest GTest::gtest_main)
      target_include_directories(${program} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/tests)
      if(MINKE_SANITIZE)  # tests themselves need not be fast: a third less time to compile
        target_compile_options(${program} PRIVATE -O0)
      endif()
      target_compile_definitions(${program} PRIVATE
                                 MINKE_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/tests/golden")
      _minke_discover(${program} threads "*Threads*")
      _minke_discover(${program} golden "*Golden*:-*Threads*")
      _minke_discover(${program} format "*Format*:-*Threads*:*Golden*")
      _minke_discover(${program} unit "*Timed*:-*Threads*:*Golden*:*Format*" RUN_SERIAL ON)
      _minke_discover(${program} unit "*:-*Threads*:*Golden*:*Format*:*Timed*")
      foreach(test ${tests})
        file(STRINGS ${test} with_threads REGEX "^TEST(_F|_P)?\\(.*Threads")
        if(with_threads)
          add_dependencies(threads_tests ${program})
        endif()
      endforeach()
    endif()
  endforeach()
endfunction()
