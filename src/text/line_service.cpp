#include "text/line_service.h"

#include <fmt/format.h>

#include <istream>
#include <limits>
#include <nlohmann/json.hpp>
#include <ostream>

#include "base/error.h"
#include "base/json.h"

namespace minke {
namespace {

using Json = nlohmann::json;

bool flag(const Json& request, const char* key) {
  const Json value = request.value(key, Json(false));
  if (!value.is_boolean()) throw FormatError(fmt::format("{}: expected true or false", key));
  return value;
}

std::vector<std::int32_t> ids_of(const Json& value) {
  if (!value.is_array()) throw FormatError("ids: expected an array of token ids");
  std::vector<std::int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > most)
      throw FormatError(fmt::format("ids[{}]: expected an integer from 0 to {}", ids.size(), most));
    ids.push_back(static_cast<std::int32_t>(id.get<std::uint64_t>()));
  }
  return ids;
}

std::string one_line(const Json& answer) {
  return answer.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

LineService::LineService(const std::filesystem::path& dir,
                         const std::optional<std::string>& chat_template)
    : dir_(dir), tokenizer_(Tokenizer::load(dir)) {
  if (chat_template) template_ = ChatTemplate::named(*chat_template);
}

const ChatTemplate& LineService::chat_template() {
  if (!template_) template_ = ChatTemplate::load(dir_);
  return *template_;
}

LineService::Answer LineService::answer(const std::string& line) {
  try {
    const Json request = parse_json(line);
    if (!request.is_object())
      throw FormatError("expected a JSON object with \"text\", \"messages\" or \"ids\"");
    if (request.contains("text")) {
      if (!request["text"].is_string()) throw FormatError("text: expected a string");
      return {
          one_line({{"ids", tokenizer_.encode(request["text"].get_ref<const std::string&>())}})};
    }
    if (request.contains("messages")) {
      const auto segments = chat_template().render(messages_from_json(request["messages"]),
                                                   tokenizer_.config().bos_token.value_or(""),
                                                   flag(request, "add_generation_prompt"));
      const std::string text = text_of(segments);
      return {one_line({{"text", text}, {"ids", tokenizer_.encode(text)}})};
    }
    if (request.contains("ids")) {
      const SkipSpecial skip =
          flag(request, "skip_special_tokens") ? SkipSpecial::Yes : SkipSpecial::No;
      return {one_line({{"text", tokenizer_.decode(ids_of(request["ids"]), skip)}})};
    }
    throw FormatError("expected one of the keys \"text\", \"messages\" and \"ids\"");
  } catch (const Error& e) {
    return {one_line({{"error", e.what()}}), true};
  }
}

std::int64_t LineService::run(std::istream& in, std::ostream& out) {
  std::int64_t failed = 0;
  for (std::string line; std::getline(in, line);) {
    const Answer a = answer(line);
    failed += a.failed;
    out << a.line << '\n';
    if (in.rdbuf()->in_avail() <= 0) out.flush();
    if (!out) throw IoError("cannot write the answers to standard output");
  }
  if (in.bad()) throw IoError("cannot read the requests from standard input");
  out.flush();
  if (!out) throw IoError("cannot write the answers to standard output");
  return failed;
}

}  // namespace minke
