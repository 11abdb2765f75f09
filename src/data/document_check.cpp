#include "data/document_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "data/held_out.h"
#include "data/json_document.h"
#include "text/utf8.h"

namespace minke {
namespace {

CheckedDocument bad(Outcome outcome, std::uint64_t bytes, std::string problem) {
  CheckedDocument checked;
  checked.record.outcome = outcome;
  checked.record.text_bytes = bytes;
  checked.problem = std::move(problem);
  return checked;
}

std::string utf8_problem(const std::string& bytes, std::size_t at) {
  const auto begin = bytes.begin();
  const auto lines = std::count(begin, begin + static_cast<long>(at), '\n');
  const std::string where = lines == 0 ? fmt::format("byte {}", at + 1)
                                       : fmt::format("byte {} ({} lines on)", at + 1, lines);
  return fmt::format("{} (0x{:02X}) is not UTF-8; --broken-utf8 replace puts U+FFFD in its place",
                     where, static_cast<unsigned char>(bytes[at]));
}

void replace_broken_utf8(std::string& bytes) {
  std::string whole;
  whole.reserve(bytes.size());
  take_utf8(bytes, whole);
  finish_utf8(bytes, whole);
  bytes = std::move(whole);
}

Outcome outcome_of(JsonProblem::Kind kind) {
  switch (kind) {
    case JsonProblem::Kind::NotJson:
      return Outcome::NotJson;
    case JsonProblem::Kind::NoText:
      return Outcome::NoText;
    case JsonProblem::Kind::WrongType:
      break;
  }
  return Outcome::WrongType;
}

Outcome outcome_of(TextFault fault) {
  switch (fault) {
    case TextFault::None:
      return Outcome::Train;
    case TextFault::TooShort:
      return Outcome::TooShort;
    case TextFault::TooLong:
      return Outcome::TooLong;
    case TextFault::RepeatedLines:
      break;
  }
  return Outcome::RepeatedLines;
}

std::optional<CheckedDocument> defect_of(const Item& item, const DataSettings& settings) {
  if (item.defect == Item::Defect::TooLong)
    return bad(Outcome::ItemTooLong, item.size,
               fmt::format("{} bytes, at most {} allowed; --max-item-bytes sets the limit",
                           item.size, settings.max_item_bytes));
  if (item.defect == Item::Defect::Truncated)
    return bad(Outcome::Truncated, item.size, "breaks off: " + item.why);
  return std::nullopt;
}

void finish_record(CheckedDocument& checked, bool with_minhash) {
  DocumentRecord& record = checked.record;
  record.hash = held_out_hash(checked.text);
  if (!with_minhash) return;
  const MinHash found = minhash(checked.text);
  record.bands = found.bands;
  record.sketch = found.sketch;
  record.has_words = found.empty ? 0 : 1;
}

}  // namespace

const char* name_of(Outcome outcome) {
  static constexpr const char* kNames[kOutcomes] = {
      "train",           "held_out",       "cut",          "item_too_long",
      "truncated",       "not_utf8",       "not_json",     "no_text_field",
      "wrong_type",      "too_short",      "too_long",     "repeated_lines",
      "exact_duplicate", "near_duplicate", "near_held_out"};
  return kNames[static_cast<int>(outcome)];
}

bool DataSettings::refuses(Outcome outcome) const {
  if (!is_bad_data(outcome)) return false;
  if (outcome == Outcome::InvalidUtf8 && broken_utf8 != "on_error") return broken_utf8 == "refuse";
  return on_error == "refuse";
}

CheckedDocument check_document(Item& item, const InputFile& file, const DataSettings& settings,
                               bool with_minhash) {
  if (auto defect = defect_of(item, settings)) return std::move(*defect);
  CheckedDocument checked;
  if (const std::size_t at = find_invalid_utf8(item.bytes); at != kValidUtf8) {
    if (settings.broken_utf8 != "replace")
      return bad(Outcome::InvalidUtf8, item.size, utf8_problem(item.bytes, at));
    replace_broken_utf8(item.bytes);
    checked.record.changes |= DocumentRecord::ReplacedUtf8;
  }
  if (file.form == TextForm::JsonLines) {
    JsonDocument json;
    if (auto problem =
            parse_json_document(item.bytes, settings.text_field, settings.source_field, json))
      return bad(outcome_of(problem->kind), item.size, std::move(problem->what));
    checked.text = std::move(json.text);
    checked.messages = std::move(json.messages);
    checked.record.is_dialogue = checked.messages.empty() ? 0 : 1;
    checked.source = json.source.value_or(file.default_source);
  } else {
    checked.text = std::move(item.bytes);
    checked.source = file.default_source;
  }
  const Cleaned cleaned = clean_text(checked.text, settings.clean);
  if (cleaned.line_ends) checked.record.changes |= DocumentRecord::LineEnds;
  if (cleaned.control_characters) checked.record.changes |= DocumentRecord::ControlCharacters;
  checked.record.text_bytes = checked.text.size();
  checked.record.outcome = outcome_of(cleaned.fault);
  // Dialogues share their template and their tools: they are near to each other, yet not the same.
  const bool may_be_near = with_minhash && checked.messages.empty();
  if (cleaned.fault == TextFault::None) finish_record(checked, may_be_near);
  return checked;
}

}  // namespace minke
