# Puts the files of a folder into the program: a generated .cpp that defines minke::web_files().
#
#   minke_embed(TARGET FOLDER)     in CMakeLists.txt
#   cmake -DFOLDER=.. -DOUT=.. -P embed.cmake     what the build then runs
#
# Pages get a Content-Security-Policy that allows their own inline script and style, by hash, and
# requests to their own server: nothing else runs, loads or is sent anywhere.

function(minke_embed target folder)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${target}_web_files.cpp)
  add_custom_command(OUTPUT ${out}
                     COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} -DOUT=${out}
                             -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed.cmake
                     DEPENDS ${files} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed.cmake
                     COMMENT "Embedding ${folder}" VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()

if(NOT CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  return()
endif()

# Hexadecimal digits to base64, as the policy writes hashes.
function(base64 out hex)
  set(letters "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(text "")
  string(LENGTH "${hex}" length)
  foreach(at RANGE 0 ${length} 6)
    string(SUBSTRING "${hex}000000" ${at} 6 group)
    math(EXPR rest "${length} - ${at}")
    if(rest GREATER 0)
      foreach(shift 18 12 6 0)
        math(EXPR letter "(0x${group} >> ${shift}) & 63")
        string(SUBSTRING ${letters} ${letter} 1 letter)
        string(APPEND text ${letter})
      endforeach()
      if(rest LESS 6)  # one or two bytes are left
        math(EXPR keep "${rest} / 2 + 1")
        string(LENGTH "${text}" n)
        math(EXPR n "${n} - 4 + ${keep}")
        string(SUBSTRING "${text}" 0 ${n} text)
        math(EXPR pad "4 - ${keep}")
        string(REPEAT "=" ${pad} pad)
        string(APPEND text ${pad})
      endif()
    endif()
  endforeach()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

# 'sha256-...' of what stands between <name> and </name>, or 'none'.
function(inline_source out page name)
  string(FIND "${page}" "<${name}>" begin)
  string(FIND "${page}" "</${name}>" end)
  if(begin EQUAL -1 OR end EQUAL -1)
    set(${out} "'none'" PARENT_SCOPE)
    return()
  endif()
  string(LENGTH "<${name}>" tag)
  math(EXPR begin "${begin} + ${tag}")
  math(EXPR length "${end} - ${begin}")
  string(SUBSTRING "${page}" ${begin} ${length} source)
  string(SHA256 hash "${source}")
  base64(hash "${hash}")
  set(${out} "'sha256-${hash}'" PARENT_SCOPE)
endfunction()

file(GLOB files ${FOLDER}/*)
set(arrays "")
set(entries "")
set(number 0)
foreach(path ${files})
  get_filename_component(name ${path} NAME)
  file(READ ${path} hex HEX)
  file(SHA256 ${path} etag)
  string(SUBSTRING ${etag} 0 32 etag)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(APPEND arrays "constexpr unsigned char kFile${number}[] = {${bytes}};\n")
  set(url "/${name}")
  set(type "application/octet-stream")
  set(policy "default-src 'none'")
  if(name MATCHES "\\.html$")
    set(type "text/html; charset=utf-8")
    file(READ ${path} page)
    inline_source(script "${page}" script)
    inline_source(style "${page}" style)
    set(policy "default-src 'none'; script-src ${script}; style-src ${style}; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
  elseif(name MATCHES "\\.js$")
    set(type "text/javascript; charset=utf-8")
  elseif(name MATCHES "\\.css$")
    set(type "text/css; charset=utf-8")
  elseif(name MATCHES "\\.svg$")
    set(type "image/svg+xml")
  endif()
  if(name STREQUAL "index.html")
    set(url "/")
  endif()
  string(APPEND entries "    {\"${url}\", \"${type}\", \"\\\"${etag}\\\"\",\n     \"${policy}\",\n"
                        "     {reinterpret_cast<const char*>(kFile${number}), sizeof kFile${number}}},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUT} "#include \"serve/web_page.h\"

namespace minke {
namespace {

${arrays}
}  // namespace

std::span<const WebFile> web_files() {
  static const WebFile files[] = {
${entries}  };
  return files;
}

}  // namespace minke
")
