// Style and script of the page of `minke report`.
//
// The script switches the x axis (body.logx), the unsmoothed curves (body.noraw) and single runs
// (body.hideN), and shows what is under the pointer. Without it the page shows everything, linear.
#pragma once
#include <string>
#include <string_view>

namespace minke::page {

// Of a page with so many runs.
std::string report_style(int n_runs);
std::string_view report_script();

}  // namespace minke::page
