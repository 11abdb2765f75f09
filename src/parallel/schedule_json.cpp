#include "parallel/schedule_json.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace minke {
namespace {

std::string fields(MicroBatch m) {
  return fmt::format("\"phase\": {}, \"chunk\": {}", m.phase, m.chunk);
}

void append(std::string& text, const ScheduleOp& op) {
  fmt::format_to(std::back_inserter(text), "{{\"op\": \"{}\", \"step\": {}, ", name_of(op.kind),
                 op.step);
  if (op.kind == OpKind::Comm) {
    text += "\"msgs\": [";
    for (std::size_t i = 0; i < op.messages.size(); ++i) {
      const StageMessage& m = op.messages[i];
      fmt::format_to(std::back_inserter(text), "{}{{\"kind\": \"{}\", {}, \"peer\": {}}}",
                     i > 0 ? ", " : "", name_of(m.kind), fields(m.micro_batch), m.peer);
    }
    text += "]}";
  } else if (op.kind == OpKind::FB) {
    fmt::format_to(std::back_inserter(text), "\"f\": {{{}}}, \"b\": {{{}}}}}", fields(op.forward),
                   fields(op.backward));
  } else {
    text += fields(op.kind == OpKind::F ? op.forward : op.backward) + "}";
  }
}

}  // namespace

void write_schedule_json(const Schedule& s, const nlohmann::ordered_json& more,
                         FunctionRef<void(std::string_view)> out) {
  std::string text = fmt::format(
      "{{\n \"schedule\": \"{}\",\n \"num_ranks\": {},\n \"num_chunks\": {},\n"
      " \"num_stages\": {},\n \"chunks_per_phase\": {},\n",
      name_of(s.kind), s.n_ranks, s.n_chunks, s.n_stages(), s.chunks_per_phase());
  for (const auto& [key, value] : more.items())
    text += fmt::format(" {}: {},\n", nlohmann::json(key).dump(), value.dump());
  text += " \"ranks\": [";
  for (std::size_t rank = 0; rank < s.ranks.size(); ++rank) {
    fmt::format_to(std::back_inserter(text), "{}\n  {{\"rank\": {}, \"ops\": [",
                   rank > 0 ? "," : "", rank);
    for (std::size_t i = 0; i < s.ranks[rank].size(); ++i) {
      text += i > 0 ? ",\n   " : "\n   ";
      append(text, s.ranks[rank][i]);
    }
    text += "\n  ]}";
    out(text);
    text.clear();
  }
  out("\n ]\n}\n");
}

}  // namespace minke
