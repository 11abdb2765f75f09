// Names for answers and tool calls that nobody can guess.
#pragma once
#include <cstdint>
#include <string>

namespace minke {

std::string random_id();  // 24 letters and digits

std::uint64_t random_seed();  // of a request that names none

}  // namespace minke
