// Messages to the user, on stderr: one line each, "minke: ..." or "minke: warning: ...".
//
// The logger also owns the one line that is rewritten in place on a terminal (base/progress.h), so
// that a message never lands in the middle of it. Everything here may be called from any thread.
#pragma once
#include <string>
#include <string_view>

namespace minke {

enum class LogLevel { Info, Warning, Silent };

// Messages below `level` are dropped. Info at the start.
void set_log_level(LogLevel level);
LogLevel log_level();

// What names out of damaged files may do to a message: control characters are shown as \xNN and a
// long text is cut, so that it stays one line that can be read.
std::string readable_line(std::string_view text);

void log_info(std::string_view message);
void log_warning(std::string_view message);

// Whether stderr is a terminal that can rewrite a line (not one with TERM=dumb).
bool log_is_terminal();

// Terminal only: shows `text` as the last line, in place of the previous one, cut to the width of
// the terminal. An empty text takes the line away.
void log_rewrite_line(std::string_view text);

// Leaves the line of log_rewrite_line where it is; what follows comes below it.
void log_keep_line();

}  // namespace minke
