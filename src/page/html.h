// A self-contained HTML page: no file beside it, nothing loaded from anywhere (its policy forbids
// it), light or dark as the reader's system is. Text given to these functions is plain; they escape
// it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace minke::page {

// Text between tags or in a quoted attribute; characters that XML does not know are left out.
std::string escape(std::string_view text);

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  // The first column is text to the left, the others numbers to the right.
};

// Horizontal bars of parts, one scale for all: memory by part, time by use.
struct Bars {
  struct Bar {
    std::string label;
    std::vector<double> parts;  // one for each of `names`, at least 0
    std::string note;           // shown behind the bar
  };
  std::vector<std::string> names;
  std::vector<Bar> bars;
};

class HtmlPage {
 public:
  explicit HtmlPage(std::string_view title);

  void heading(std::string_view text);
  void paragraph(std::string_view text);
  void table(const Table& table);
  void bars(const Bars& bars);
  // Markup that is inserted as it is, in a box that scrolls sideways: an SVG picture.
  void picture(std::string_view svg);
  // The same without a box.
  void markup(std::string_view html) { body_ += html; }
  // Rules behind the page's own, and a script that runs when all of the page is there. Neither may
  // hold "</".
  void style(std::string_view css) { style_ += css; }
  void script(std::string_view javascript) { script_ += javascript; }

  std::string finish() const;

 private:
  std::string title_, body_, style_, script_;
};

}  // namespace minke::page
