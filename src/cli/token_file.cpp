#include "cli/token_file.h"

#include <fmt/format.h>

#include "base/error.h"
#include "io/safetensors.h"

namespace minke {

std::vector<std::vector<std::int32_t>> read_token_rows(const std::filesystem::path& path,
                                                       Index vocabulary) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const TensorInfo& info = file.at("tokens");
  if (info.dtype != DType::I64 || info.shape.size() != 2 || info.shape[0] < 1 || info.shape[1] < 1)
    throw FormatError(fmt::format("{}: tensor tokens is {} {}; expected I64 [B, S], neither empty",
                                  path.string(), name_of(info.dtype), to_string(info.shape)));
  const auto tokens = file.view<std::int64_t, 2>(info);
  std::vector<std::vector<std::int32_t>> rows(static_cast<std::size_t>(info.shape[0]));
  for (Index b = 0; b < info.shape[0]; ++b)
    for (Index s = 0; s < info.shape[1]; ++s) {
      const std::int64_t id = tokens(b, s);
      if (id < 0 || id >= vocabulary)
        throw FormatError(fmt::format("{}: tokens[{}, {}] is {}; the model's vocabulary is 0 to {}",
                                      path.string(), b, s, id, vocabulary - 1));
      rows[static_cast<std::size_t>(b)].push_back(static_cast<std::int32_t>(id));
    }
  file.check_intact();
  return rows;
}

}  // namespace minke
