#include "cli/line_input.h"

#include <histedit.h>
#include <langinfo.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "text/utf8.h"

namespace minke {
namespace {

std::wstring to_wide(std::string_view utf8) {
  std::wstring wide;
  for (std::size_t at = 0; at < utf8.size();) {
    const CodePoint c = code_point_at(utf8, at);
    wide.push_back(static_cast<wchar_t>(c.code));
    at += c.bytes;
  }
  return wide;
}

std::string to_utf8(const wchar_t* wide) {
  std::string utf8;
  for (; *wide; ++wide) append_utf8(utf8, static_cast<std::uint32_t>(*wide));
  return utf8;
}

// The library measures and writes wide characters by the locale.
void use_utf8_locale() {
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineInput::Editor {
  explicit Editor(const InterruptScope& interrupt, std::filesystem::path file)
      : interrupt(interrupt), history_file(std::move(file)) {
    use_utf8_locale();
    edit = el_init("minke", stdin, stdout, stderr);
    history = history_winit();
    HistEventW event;
    history_w(history, &event, H_SETSIZE, 1000);
    history_w(history, &event, H_SETUNIQUE, 1);
    el_wset(edit, EL_CLIENTDATA, this);
    el_wset(edit, EL_PROMPT, &Editor::show_prompt);
    el_wset(edit, EL_EDITOR, L"emacs");
    el_wset(edit, EL_HIST, history_w, history);
    el_wset(edit, EL_GETCFN, &Editor::read_character);
    el_wset(edit, EL_BIND, L"^R", L"em-inc-search-prev", nullptr);
    if (!history_file.empty()) history_w(history, &event, H_LOAD, history_file.c_str());
  }
  ~Editor() {
    el_end(edit);
    history_wend(history);
  }

  static Editor& of(EditLine* edit) {
    void* self = nullptr;
    el_wget(edit, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static wchar_t* show_prompt(EditLine* edit) { return of(edit).prompt.data(); }

  // One character: 1, 0 at the end of the input, -1 when the line is given up.
  static int read_character(EditLine* edit, wchar_t* out) {
    Editor& self = of(edit);
    std::string bytes;
    while (true) {
      char byte = 0;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n == 0) return 0;
      if (n < 0) {
        if (errno != EINTR) return -1;
        if (self.interrupt.requested()) {
          const LineInfoW* line = el_wline(edit);
          self.line_was_empty = line->lastchar == line->buffer;
          return -1;
        }
        continue;
      }
      bytes.push_back(byte);
      std::string text;
      take_utf8(bytes, text);
      if (text.empty()) continue;
      *out = static_cast<wchar_t>(code_point_at(text, 0).code);
      return 1;
    }
  }

  void remember(const wchar_t* line) {
    HistEventW event;
    history_w(history, &event, H_ENTER, line);
    if (history_file.empty()) return;
    std::error_code ignored;  // without a history file the chat goes on
    std::filesystem::create_directories(history_file.parent_path(), ignored);
    const mode_t before = umask(077);
    history_w(history, &event, H_SAVE, history_file.c_str());
    umask(before);
  }

  const InterruptScope& interrupt;
  std::filesystem::path history_file;
  EditLine* edit = nullptr;
  HistoryW* history = nullptr;
  std::wstring prompt;
  bool line_was_empty = true;
};

LineInput::LineInput(const InterruptScope& interrupt, const std::filesystem::path& history_file)
    : interrupt_(interrupt) {
  if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
    editor_ = std::make_unique<Editor>(interrupt, history_file);
}

LineInput::~LineInput() = default;

LineInput::Result LineInput::read(const std::string& prompt, std::string& line) {
  line.clear();
  if (!editor_) {
    if (std::getline(std::cin, line)) return Result::Line;
    return interrupt_.requested() ? Result::Interrupted : Result::End;
  }
  editor_->prompt = to_wide(prompt);
  editor_->line_was_empty = true;
  el_resize(editor_->edit);  // the terminal may have another size by now
  int count = 0;
  const wchar_t* wide = el_wgets(editor_->edit, &count);
  if (!wide || count <= 0 || interrupt_.requested()) {
    std::fputs("\n", stdout);
    if (!interrupt_.requested()) return Result::End;
    return editor_->line_was_empty ? Result::Interrupted : Result::Discarded;
  }
  line = to_utf8(wide);
  if (line.find_first_not_of(" \t\r\n") != std::string::npos) editor_->remember(wide);
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  return Result::Line;
}

std::filesystem::path state_file(const std::string& name) {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state == '/')
    return std::filesystem::path(state) / "minke" / name;
  if (const char* home = std::getenv("HOME"); home && *home == '/')
    return std::filesystem::path(home) / ".local/state/minke" / name;
  return {};
}

}  // namespace minke
