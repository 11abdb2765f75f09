#include "page/html.h"

#include <gtest/gtest.h>

namespace minke::page {
namespace {

TEST(Html, EscapesWhatMarkupWouldRead) {
  EXPECT_EQ(escape("a<b & \"c\" 'd'>"), "a&lt;b &amp; &quot;c&quot; &#39;d&#39;&gt;");
  EXPECT_EQ(escape(std::string_view("a\0b\x1b", 4)), "ab");
  EXPECT_EQ(escape("Größe"), "Größe");
}

TEST(Html, PageIsSelfContained) {
  HtmlPage page("A <title>");
  page.heading("Memory & time");
  page.table({{"rank", "bytes"}, {{"0", "1"}, {"<1>", "2"}}});
  page.bars({{"weights", "gradients"}, {{"rank 0", {1, 3}, "4 GB"}, {"rank 1", {0, 2}, "2 GB"}}});
  page.picture("<svg></svg>");
  const std::string html = page.finish();
  EXPECT_NE(html.find("<h1>A &lt;title&gt;</h1>"), std::string::npos);
  EXPECT_NE(html.find("<td>&lt;1&gt;</td>"), std::string::npos);
  EXPECT_NE(html.find("width:75.0000%"), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);
  EXPECT_EQ(html.find("href="), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
}

TEST(Html, AScriptRunsBehindTheMarkupAndLoadsNothing) {
  HtmlPage page("t");
  page.style("i { color: red }");
  page.script("console.log(1)");
  page.markup("<i>x</i>");
  const std::string html = page.finish();
  EXPECT_NE(html.find("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"),
            std::string::npos);
  EXPECT_LT(html.find("i { color: red }"), html.find("</style>"));
  EXPECT_LT(html.find("<i>x</i>"), html.find("<script>console.log(1)</script>"));
}

TEST(Html, EmptyBarsAndTables) {
  HtmlPage page("");
  page.bars({});
  page.bars({{"a"}, {{"zero", {0}, ""}}});
  page.table({});
  EXPECT_EQ(page.finish().find("nan"), std::string::npos);
}

}  // namespace
}  // namespace minke::page
