#include "plan/values.h"

#include "base/error.h"
#include "plan/cache_bytes.h"
#include "plan/decode_bound.h"
#include "plan/report_facts.h"
#include "plan/traffic.h"

namespace minke {
namespace {

double real(Index n) {
  return static_cast<double>(n);
}

void add_parameters(const PlanModel& model, NamedValues& v) {
  const ParameterTable v3 = parameter_table(model);
  const ParameterTable v2 = parameter_table(plan_model_preset("deepseek-v2"));
  const ParameterTable lite = parameter_table(plan_model_preset("deepseek-v2-lite"));
  v.insert(v.end(),
           {{"params.v3.total_claim", real(v3.total)},
            {"params.v3.activated_claim", real(v3.active_without_embedding)},
            {"params.v3.activated_claim_readme", real(v3.active_without_embedding)},
            // The documentation of the weights leaves the projection out of both.
            {"params.v3.mtp_unique_claim", real(v3.moe_layer)},
            {"params.v3.mtp_active_claim", real(v3.moe_layer_active + v3.embedding + v3.head)},
            {"params.v3.mtp_checkpoint_claim", real(v3.mtp_with_copies)},
            {"params.v3.checkpoint_total_claim", real(v3.checkpoint_total)},
            {"params.v2.total_claim", real(v2.total)},
            {"params.v2.activated_claim", real(v2.active_without_embedding)},
            {"params.v2lite.total_claim", real(lite.total)},
            {"params.v2lite.activated_claim", real(lite.active_without_embedding)}});
}

void add_cache(const PlanModel& model, NamedValues& v) {
  const double v3 = cache_row(model).bytes(16);
  const double qwen = cache_row(plan_model_preset("qwen2.5-72b")).bytes(16);
  const double llama = cache_row(plan_model_preset("llama-3.1-405b")).bytes(16);
  const PlanModel v2 = plan_model_preset("deepseek-v2");
  const CacheRow v2_row = cache_row(v2);
  const CacheRow one_group = grouped_cache(v2, 1, v2.v_head_dim);
  const double dense = cache_row(plan_model_preset("deepseek-67b")).bytes(16);
  v.insert(v.end(),
           {{"kv.v3.bytes_per_token_bf16", v3},
            {"kv.qwen2.5-72b.bytes_per_token_bf16", qwen},
            {"kv.llama3.1-405b.bytes_per_token_bf16", llama},
            {"kv.ratio.qwen_over_v3", qwen / v3},
            {"kv.ratio.llama_over_v3", llama / v3},
            {"kv.v2.gqa_group_equivalent",
             real(v2_row.elements_per_layer) / real(one_group.elements_per_layer)},
            {"kv.v2.reduction_vs_67b_6bit", 1 - v2_row.bytes(facts::kV2CacheBits) / dense}});
}

void add_cluster(const Cluster& c, const Layout& l, NamedValues& v) {
  v.insert(v.end(), {{"hw.h800.bf16_dense_peak", c.peak_bf16_flops_per_s},
                     {"hw.h800.fp8_dense_peak", c.peak_fp8_flops_per_s},
                     {"hw.h800.hbm_bandwidth", c.memory_bytes_per_s},
                     {"hw.h800.hbm_bytes", c.memory_bytes},
                     {"hw.ib_bandwidth", c.link_between_bytes_per_s},
                     {"hw.nvlink_bandwidth", c.link_inside_bytes_per_s},
                     {"hw.nvlink_over_ib", free_experts_per_node(c)},
                     {"hw.gpus", real(c.devices)},
                     {"hw.gpus_per_node", real(c.devices_per_node)},
                     {"hw.h800.sm", real(c.compute_units)},
                     {"hw.comm_sm", real(c.communication_units)},
                     {"parallel.pp", real(l.pipeline)},
                     {"parallel.ep", real(l.expert)},
                     {"parallel.tp", facts::kTensorParallel},
                     {"parallel.zero_stage", facts::kZeroStage},
                     {"parallel.non_expert_dp", real(l.data)},
                     {"parallel.expert_dp", real(l.expert_replicas())},
                     {"batch.sequences", real(l.batch_sequences())},
                     {"batch.seq_len", real(l.sequence)},
                     {"batch.tokens_per_step", l.tokens_per_step()},
                     {"batch.sequences_per_pipeline", real(l.micro_batches * l.micro_batch)}});
}

void add_hours(const Cluster& c, const Speed& speed, NamedValues& v) {
  const double trillion = speed.device_hours(1e12);
  const auto cost = [&](double hours) {
    return run_cost(hours, c.devices, c.price_per_device_hour);
  };
  const std::vector<CostRow> table = with_total(
      {{"pre-training", facts::kTokens, cost(facts::kHoursPerTrillion * (facts::kTokens / 1e12))},
       {"context", 0, cost(facts::kContextHours)},
       {"post-training", 0, cost(facts::kPostTrainingHours)}});
  v.insert(v.end(), {{"train.tokens", facts::kTokens},
                     {"train.gpu_hours_per_1e12_tokens", trillion},
                     {"train.days_per_1e12_tokens", cost(trillion).days},
                     {"train.pretrain_gpu_hours", table[0].cost.hours},
                     {"train.context_gpu_hours", table[1].cost.hours},
                     {"train.post_gpu_hours", table[2].cost.hours},
                     {"train.total_gpu_hours", table[3].cost.hours},
                     {"train.usd_per_gpu_hour", c.price_per_device_hour},
                     {"train.pretrain_usd", table[0].cost.usd},
                     {"train.context_usd", table[1].cost.usd},
                     {"train.post_usd", table[2].cost.usd},
                     {"train.total_usd", table[3].cost.usd},
                     {"train.pretrain_days", table[0].cost.days},
                     {"train.gpu_hours_per_1e12_from_step", trillion}});
}

void add_step(const Speed& speed, NamedValues& v) {
  const facts::StepParts parts;
  v.insert(v.end(), {{"train.step_seconds", speed.step_seconds},
                     {"train.tokens_per_day", speed.tokens_per_day()},
                     {"train.step_part.1F", parts.F},
                     {"train.step_part.bubble", parts.bubble},
                     {"train.step_part.1B", parts.B},
                     {"train.step_part.1W", parts.W},
                     {"train.step_part.1F1B", parts.FB},
                     {"train.step_part.opt", parts.optimizer},
                     {"train.step_parts_sum", parts.sum()},
                     {"train.tokens_per_s_per_gpu", speed.tokens_per_s_per_device()}});
}

void add_utilisation(const PlanModel& model, const Cluster& c, const Layout& l, const Speed& speed,
                     NamedValues& v) {
  const PlanModel v2_model = plan_model_preset("deepseek-v2");
  const double causal = flops_per_token(model, {.sequence = l.sequence}).train();
  const double full = flops_per_token(model, {.sequence = l.sequence, .mask = Mask::Full}).train();
  const double v2 = flops_per_token(v2_model, {.sequence = l.sequence}).train();
  const double bf16 = c.peak_bf16_flops_per_s;
  const double from_step = speed.tokens_per_s_per_device();
  const double from_hours = tokens_per_s_per_device(1e12, facts::kHoursPerTrillion);
  const double v2_speed = tokens_per_s_per_device(1e12, facts::kV2HoursPerTrillion);
  const auto mfu = model_flops_utilisation;
  v.insert(v.end(),
           {{"flops.v3.train_per_token_4k", causal},
            {"flops.v2.train_per_token_4k", v2},
            {"train.tflops_causal", from_step * causal},
            {"train.tflops_noncausal", from_step * full},
            {"train.mfu_causal", mfu(from_step, causal, bf16)},
            {"train.mfu_noncausal", mfu(from_step, full, bf16)},
            {"train.mfu_causal_derived", mfu(from_step, causal, bf16)},
            {"train.mfu_noncausal_derived", mfu(from_step, full, bf16)},
            {"train.mfu_180k_bf16", mfu(from_hours, causal, bf16)},
            {"train.mfu_180k_fp8", mfu(from_hours, causal, c.peak_flops_per_s(true))},
            {"train.mfu_6nd_37b", mfu(from_hours, 6 * facts::kActiveRounded, bf16)},
            {"train.v2_gpu_hours_per_1e12_tokens", facts::kV2HoursPerTrillion},
            {"train.67b_gpu_hours_per_1e12_tokens", facts::k67bHoursPerTrillion},
            {"train.v2_saving", 1 - facts::kV2HoursPerTrillion / facts::k67bHoursPerTrillion},
            {"train.v2_mfu_bf16", mfu(v2_speed, v2, bf16)}});
}

void add_context(const PlanModel& model, const Cluster& c, NamedValues& v) {
  double tokens = 0;
  for (const ContextPhase& phase : facts::kContextPhases) tokens += phase.tokens();
  const double flop = context_flops(model, facts::kContextPhases);
  v.insert(v.end(), {{"context.tokens", tokens},
                     {"context.flop", flop},
                     {"context.mfu_bf16",
                      model_flops_utilisation(tokens_per_s_per_device(tokens, facts::kContextHours),
                                              flop / tokens, c.peak_bf16_flops_per_s)}});
}

void add_exchange(const PlanModel& model, const Cluster& c, const Layout& l, NamedValues& v) {
  const NodeSpread spread = node_spread(model, expert_nodes(c, l.expert));
  const ExchangeBytes b = exchange_bytes(model, spread.most, true);
  const double tokens = real(l.micro_batch_tokens());
  const double ib = tokens / c.link_between_bytes_per_s, nv = tokens / c.link_inside_bytes_per_s;
  const double message = pipeline_message_bytes(model, l.micro_batch_tokens());
  v.insert(v.end(), {{"a2a.dispatch_ib_bytes_per_token_max_fp8", b.dispatch_between},
                     {"a2a.dispatch_ib_scale_bytes", b.dispatch_between_scales},
                     {"a2a.combine_ib_bytes_per_token_max_bf16", b.combine_between},
                     {"a2a.dispatch_nvlink_bytes_per_token_fp8", b.dispatch_inside},
                     {"a2a.combine_nvlink_bytes_per_token_bf16", b.combine_inside},
                     {"a2a.ib_seconds_dispatch_4096_tokens", ib * b.dispatch_between},
                     {"a2a.ib_seconds_combine_4096_tokens", ib * b.combine_between},
                     {"a2a.nvlink_seconds_dispatch_4096_tokens", nv * b.dispatch_inside},
                     {"a2a.nvlink_seconds_combine_4096_tokens", nv * b.combine_inside},
                     {"a2a.remote_nodes_average_if_own_node_is_one_of_8", spread.remote_at_most},
                     {"a2a.max_nodes_per_token", real(spread.most)},
                     {"a2a.experts_per_node_free", free_experts_per_node(c)},
                     {"a2a.max_experts_same_cost", experts_at_same_cost(c, spread.most)},
                     {"a2a.compute_over_comm_forward_layer",
                      compute_over_exchange(model, c, l.micro_batch_tokens(), spread.most,
                                            facts::kAssumedShareOfPeak)},
                     {"pp.p2p_bytes_per_microbatch", message},
                     {"pp.p2p_seconds_ib", message / c.link_between_bytes_per_s}});
}

void add_inference(const PlanModel& model, const Cluster& c, NamedValues& v) {
  const double layers = real(model.num_hidden_layers);
  ExchangeLoad load = {.tokens = facts::kDecodeTokens,
                       .copies = real(model.num_experts_per_tok + model.n_shared_experts),
                       .hidden = facts::kRoundedHidden};
  const double ib = exchange_seconds(load, c.link_between_bytes_per_s);
  const double nvl72 = exchange_seconds(load, facts::kNvl72BytesPerS);
  load.hidden = real(model.hidden_size);
  const double exact = exchange_seconds(load, c.link_between_bytes_per_s);
  const double acceptance = (facts::kAcceptanceMin + facts::kAcceptanceMax) / 2;
  v.insert(v.end(), {{"inference.comm_seconds_ib", ib},
                     {"inference.tpot_ib", token_seconds(ib, layers)},
                     {"inference.tps_ib", 1 / token_seconds(ib, layers)},
                     {"inference.comm_seconds_nvl72", nvl72},
                     {"inference.tpot_nvl72", token_seconds(nvl72, layers)},
                     {"inference.tps_nvl72", 1 / token_seconds(nvl72, layers)},
                     {"inference.tps_ib_hidden_7168", 1 / token_seconds(exact, layers)},
                     {"inference.mtp_accept_min", facts::kAcceptanceMin},
                     {"inference.mtp_accept_max", facts::kAcceptanceMax},
                     {"inference.mtp_speedup", mtp_speedup(acceptance, mtp_module_cost(model))},
                     {"inference.prefill_gpus", real(serving_unit("report-prefill").devices())},
                     {"inference.decode_gpus", real(serving_unit("report-decode").devices())}});
}

}  // namespace

void check_published_model(const PlanModel& model) {
  if (!model.has_experts() || model.attention != AttentionKind::Latent)
    throw ConfigError(model.name +
                      " has no latent attention and experts; the published figures are those of "
                      "deepseek-v3");
}

NamedValues published_values(const PlanModel& model, const Cluster& c, const Layout& l) {
  check_published_model(model);
  const Speed speed = {l.tokens_per_step(), facts::kStepSeconds, l.devices()};
  NamedValues v;
  add_parameters(model, v);
  add_cache(model, v);
  add_cluster(c, l, v);
  add_hours(c, speed, v);
  add_step(speed, v);
  add_utilisation(model, c, l, speed, v);
  add_context(model, c, v);
  add_exchange(model, c, l, v);
  add_inference(model, c, v);
  return v;
}

}  // namespace minke
