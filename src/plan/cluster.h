// What a run is planned for: devices, how they compute, remember and talk, and what they cost.
//
// A cluster is a preset (`h800x2048`, `h100`, `h200`, `b200`, `cpu`; NAMExN gives it N devices) or
// a JSON file with the keys below. Bandwidths are one way, of one device.
#pragma once
#include <string>
#include <vector>

#include "base/options.h"
#include "model/config.h"

namespace minke {

// Shares of the peaks that a machine was measured to reach (`minke plan calibrate`); 0: not
// measured.
struct Efficiency {
  double products = 0;   // of the BF16 peak, dense products
  double experts = 0;    // of the BF16 peak, grouped products
  double gradients = 0;  // of the BF16 peak, products of weight gradients
  double attention = 0;  // of the BF16 peak
  double memory = 0;     // of the bandwidth, streams that are read and written
  double weights = 0;    // of the bandwidth, weights read for a few rows
  // From FP8 weights with BF16 arithmetic: for a few rows, and dense products of many.
  double weights_fp8 = 0;   // of the bandwidth
  double products_fp8 = 0;  // of the BF16 peak
  // A layer of experts takes  bytes of the touched weights / (bandwidth moe_weights)
  //                         + FLOP / (BF16 peak moe_products).
  double moe_weights = 0, moe_products = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("products", products, "share of the BF16 peak of dense products; 0: not measured",
          between(0, 1));
    field("experts", experts, "of grouped products", between(0, 1));
    field("gradients", gradients, "of products of weight gradients", between(0, 1));
    field("attention", attention, "of attention", between(0, 1));
    field("memory", memory, "share of the memory bandwidth of streams read and written",
          between(0, 1));
    field("weights", weights, "of weights that are read for a few rows", between(0, 1));
    field("weights_fp8", weights_fp8, "the same of FP8 weights", between(0, 1));
    field("products_fp8", products_fp8, "share of the BF16 peak of products with FP8 weights",
          between(0, 1));
    field("moe_weights", moe_weights,
          "share of the memory bandwidth at which a layer of experts takes in its weights",
          between(0, 1));
    field("moe_products", moe_products, "share of the BF16 peak of its products beside that",
          between(0, 1));
  }
};

struct Cluster {
  std::string name;
  std::string source;  // of the figures, and what is assumed
  Index devices = 0;
  Index devices_per_node = 0;
  double peak_bf16_flops_per_s = 0;     // dense, of one device
  double peak_fp8_flops_per_s = 0;      // 0: no FP8 products; BF16 ones do the work
  double memory_bytes = 0;              // of one device
  double memory_bytes_per_s = 0;        // its bandwidth
  double link_inside_bytes_per_s = 0;   // to a device of the same node
  double link_between_bytes_per_s = 0;  // to another node
  double price_per_device_hour = 0;     // US dollars
  double device_mtbf_hours = 0;         // mean time between failures that stop a job; 0: not known
  Index compute_units = 1;              // streaming multiprocessors, cores
  Index communication_units = 0;        // of them, set aside for communication in training
  Efficiency efficiency;

  template <class Visitor>
  void visit(Visitor& field) {
    field("name", name, "what it is called");
    field("source", source, "where the figures come from");
    field("devices", devices, "devices in all", between(1, 1 << 24));
    field("devices_per_node", devices_per_node, "devices that share a node", between(1, 1 << 20));
    field("peak_bf16_flops_per_s", peak_bf16_flops_per_s, "of one device, dense", above(0));
    field("peak_fp8_flops_per_s", peak_fp8_flops_per_s, "of one device, dense; 0: none",
          at_least(0));
    field("memory_bytes", memory_bytes, "of one device", above(0));
    field("memory_bytes_per_s", memory_bytes_per_s, "bandwidth of that memory", above(0));
    field("link_inside_bytes_per_s", link_inside_bytes_per_s,
          "one way, to devices of the same node", above(0));
    field("link_between_bytes_per_s", link_between_bytes_per_s, "one way, to other nodes",
          above(0));
    field("price_per_device_hour", price_per_device_hour, "US dollars", at_least(0));
    field("device_mtbf_hours", device_mtbf_hours,
          "mean time between failures of one device; 0: not known", at_least(0));
    field("compute_units", compute_units, "multiprocessors or cores of a device",
          between(1, 1 << 20));
    field("communication_units", communication_units, "of them, set aside for communication",
          between(0, 1 << 20));
    field("efficiency", efficiency, "measured shares of the peaks");
  }

  Index nodes() const { return (devices + devices_per_node - 1) / devices_per_node; }
  // FP8 where the device has it.
  double peak_flops_per_s(bool fp8) const {
    return fp8 && peak_fp8_flops_per_s > 0 ? peak_fp8_flops_per_s : peak_bf16_flops_per_s;
  }
};

const std::vector<std::string>& cluster_names();

// NAME or NAMExN. UsageError naming the nearest known name.
Cluster cluster_preset(const std::string& name);

// ConfigError, FormatError or IoError naming the file and the key.
Cluster cluster_from_file(const std::string& path);

// A file when `name_or_file` ends in .json, else a preset.
Cluster cluster(const std::string& name_or_file);

// ConfigError with `where` in front when keys are missing or contradict each other.
void check_cluster(const Cluster& cluster, const std::string& where);

}  // namespace minke
