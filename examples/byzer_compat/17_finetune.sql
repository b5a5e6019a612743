-- Fine-tuning (微调): a job, a deployment of its result, and the adapter merged into its base.
load json.`/tmp/upload/dummy_data.jsonl` where
inferSchema="true"
as sft_data;

!byzerllm setup sft;
!byzerllm setup "num_gpus=4";

run command as LLM.`` where
and localPathPrefix="/home/byzerllm/models/sft/jobs"
and pretrainedModelType="sft/llama2"
and localModelDir="/home/byzerllm/models/Llama-2-7b-chat-hf"
and model="command"
and inputTable="sft_data"
and outputTable="llama2_300"
and  detached="true"
and `sft.int.max_seq_length`="512";

!byzerllm setup single;
run command as LLM.`` where
action="infer"
and localPathPrefix="/home/byzerllm/models/infer/jobs"
and localModelDir="/home/byzerllm/models/sft/jobs/sft-william-llama2-alpaca-data-ccb8fb55-382c-49fb-af04-5cbb3966c4e6/finetune_model/final"
and pretrainedModelType="custom/llama2"
and udfName="fintune_llama2_chat"
and modelTable="command";

!byzerllm setup single;

run command as LLM.`` where
action="convert"
and pretrainedModelType="deepspeed/llama"
and model_dir="/home/byzerllm/models/sft/jobs/sft-william-20230912-21-50-10-2529bf9f-493e-40a3-b20f-0369bd01d75d/finetune_model/final/pretrained_model"
and checkpoint_dir="/home/byzerllm/models/sft/jobs/sft-william-20230912-21-50-10-2529bf9f-493e-40a3-b20f-0369bd01d75d/finetune_model/final"
and savePath="/home/byzerllm/models/sft/jobs/sft-william-20230912-21-50-10-2529bf9f-493e-40a3-b20f-0369bd01d75d/finetune_model/merge";
