// CRC-32C (Castagnoli; RFC 3720, appendix B.4): the reflected polynomial 0x82F63B78, start and end
// inverted. TFRecord files carry it.
#pragma once
#include <cstdint>
#include <string_view>

namespace minke {

std::uint32_t crc32c(std::string_view bytes);

}  // namespace minke
